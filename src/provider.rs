//! Providers fetch tokens. They know neither caches nor requests.

mod key;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::watch;

pub use self::key::{KeyMaterial, KeyedProvider};
use crate::clock::{Clock, Now, TokioClock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::rate_limit::{Class, Flight, Permit, RateLimit, Urgency};
use crate::secret::Secret;
use crate::token::{AccessToken, MAX_LIFE};

/// After the last token request was granted, a provider may go on for the `fetch_timeout` and
/// this long, and a wrapper for this long after the wrapped provider: it stores what the request
/// brought, or releases its lease.
pub(crate) const AFTER_REQUEST: Duration = Duration::from_secs(5);

/// A task that has not stopped so long after it should have is given up.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Fetches tokens, one per call.
///
/// A cache calls [`fetch`](Self::fetch) at most once at a time, in a task of its own that no
/// caller can cancel. A provider need not retry, remember or limit anything. It calls
/// [`FetchContext::permit`] right before it sends a token request, and holds the permit until the
/// answer has arrived.
///
/// ```
/// use officernd_auth::{AccessToken, Error, FetchContext, RateLimit, TokenCache, TokenProvider};
/// use std::time::Duration;
///
/// struct Vault;
///
/// impl TokenProvider for Vault {
///     async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
///         let _permit = cx.permit().await?;
///         // ... ask the vault ...
///         AccessToken::bearer("from-the-vault", Duration::from_secs(600))
///     }
///
///     fn rate_limit(&self) -> Option<RateLimit> {
///         None
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let cache = TokenCache::new(Vault);
/// assert_eq!(cache.token().await?.header_value(), "Bearer from-the-vault");
/// # Ok(())
/// # }
/// ```
///
/// # Time limits
///
/// While a permit is held, the future is dropped `fetch_timeout` after the permit was granted, and
/// the fetch fails with [`Timeout`](ErrorKind::Timeout). Without a permit the future is dropped at
/// the [`deadline`](FetchContext::deadline). After the permit was dropped, the provider may go on
/// until 5 s after that `fetch_timeout`, or until the deadline if that is later. A wrapper may
/// always go on for 5 s after [`FetchContext::fetch_from`].
///
/// # Wrapping providers
///
/// A provider that wraps another one forwards both methods, so that the wrapped provider shares
/// its rate limit and takes its permits.
///
/// A wrapper that does more after the token request, such as storing the token for other
/// processes, calls the wrapped provider through [`FetchContext::fetch_from`].
pub trait TokenProvider: Send + Sync + 'static {
    /// Fetches a new token.
    ///
    /// The life of the token counts from the last [`permit`](FetchContext::permit), or from the
    /// start of the fetch if there was none.
    ///
    /// # Errors
    ///
    /// The kind decides the backoff; see [`backoff`](crate::backoff) for the table. A longer
    /// [`Error::retry_after`] is obeyed.
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send;

    /// Returns the rate limit that this provider shares with others in the process. With `None`
    /// each cache has its own limit of 5 requests per 60 s. A rate limit that is set on the
    /// builder is used instead.
    fn rate_limit(&self) -> Option<RateLimit>;
}

impl<P: TokenProvider> TokenProvider for Arc<P> {
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        P::fetch(self, cx)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        P::rate_limit(self)
    }
}

/// [`TokenProvider`] as an object: a cache has no type parameter. The box is
/// paid once a token, not once a request.
pub(crate) trait DynProvider: Send + Sync {
    fn fetch(
        &self,
        cx: FetchContext,
    ) -> Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + '_>>;
    fn rate_limit(&self) -> Option<RateLimit>;
}

impl<P: TokenProvider> DynProvider for P {
    fn fetch(
        &self,
        cx: FetchContext,
    ) -> Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + '_>> {
        Box::pin(TokenProvider::fetch(self, cx))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        TokenProvider::rate_limit(self)
    }
}

/// Why a token is fetched.
///
/// ```
/// use officernd_auth::provider::Cause;
///
/// assert_eq!(Cause::Rejected.as_str(), "rejected");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// There was no token yet.
    Cold,
    /// The token nears its expiry.
    Ahead,
    /// The token is expired, or within its margin.
    Expired,
    /// A server answered 401 to the token.
    Rejected,
    /// Somebody called [`TokenCache::refresh`](crate::TokenCache::refresh).
    Manual,
}

impl Cause {
    /// The cause's stable name, as in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Ahead => "ahead",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Manual => "manual",
        }
    }
}

/// The context of one fetch: its cause, urgency and deadline, and access to the
/// [`RateLimit`].
///
/// A clone belongs to the same fetch. [`Default`] gives a context for trying out a provider by
/// hand: no rate limit, a deadline in 30 s, and a `fetch_timeout` of 10 s.
///
/// ```
/// use officernd_auth::{FetchContext, StaticToken, TokenProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let token = StaticToken::new("abc")?.fetch(FetchContext::default()).await?;
/// assert_eq!(token.header_value(), "Bearer abc");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FetchContext {
    pub(crate) cause: Cause,
    pub(crate) urgency: watch::Receiver<Urgency>,
    pub(crate) deadline: Instant,
    pub(crate) fetch_timeout: Duration,
    pub(crate) rate_limit: RateLimit,
    /// The place in line until a time, where the urgency does not decide it.
    pub(crate) class: Option<(Class, Instant)>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The token that is to be replaced, and when its life ends.
    pub(crate) previous: Option<(AccessToken, Instant)>,
    /// What the cache knows of the fetch; `None` without a cache.
    pub(crate) flight: Option<Arc<dyn Flight>>,
    /// The token requests of one try of a fetch, which all its contexts share.
    pub(crate) sent: watch::Sender<Sent>,
    /// The place that a wrapper has reserved for the next request, and how many wrappers are
    /// around the provider.
    pub(crate) reserved: Arc<Mutex<Option<Permit>>>,
    pub(crate) depth: u32,
}

impl FetchContext {
    /// Returns why the token is fetched.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns whether requests wait for the token now. A request that joins makes a
    /// background fetch urgent.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        *self.urgency.borrow()
    }

    /// Returns when the fetch is given up if it holds no permit, on the cache's [`Clock`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns how long one request to the token endpoint may take. The cache enforces it from
    /// the [`permit`](Self::permit) on.
    #[must_use]
    pub fn fetch_timeout(&self) -> Duration {
        self.fetch_timeout
    }

    /// Returns the cache's clock. A provider reads no other, so that tests can pause time.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Returns the token that the cache has and wants replaced: expired, about to be,
    /// or, if the [`cause`](Self::cause) says so, rejected by a server. A
    /// provider that keeps tokens must not answer with a rejected one.
    #[must_use]
    pub fn previous(&self) -> Option<&AccessToken> {
        self.previous.as_ref().map(|(token, _)| token)
    }

    /// Returns what is left of the life of the [`previous`](Self::previous) token.
    #[must_use]
    pub fn previous_left(&self) -> Option<Duration> {
        let (_, ends_at) = self.previous.as_ref()?;
        Some(ends_at.saturating_duration_since(self.clock.now()))
    }

    /// Returns requests and window of the rate limit. `None` is unlimited.
    #[must_use]
    pub fn limit(&self) -> Option<(u32, Duration)> {
        self.rate_limit.limit()
    }

    /// Takes one token request of the [`RateLimit`], waiting for its turn if need be.
    ///
    /// Call it right before sending: the life of the token and the `fetch_timeout` count from
    /// here. Hold the permit until the answer has arrived: the request counts until a whole window
    /// after that. If the connection was never made, give the permit back with
    /// [`Permit::unsent`].
    ///
    /// Inside [`fetch_from`](Self::fetch_from) the first permit takes the place that the wrapper
    /// has reserved.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RateLimited`], at once, if no request frees before the deadline;
    /// `retry_after` says when. [`ErrorKind::Runtime`] if the cache has given the fetch up: it must
    /// send nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn permit(&self) -> Result<Permit, Error> {
        let place = self.reserve().await?;
        place
            .sent(Arc::new(self.clone()))
            .ok_or_else(|| Error::new(ErrorKind::Runtime, "the fetch was given up").not_attempted())
    }

    /// Reserves a place for one token request without counting it. Dropped, the place is free
    /// again.
    ///
    /// A wrapper that must have a place before it asks a store passes it to
    /// [`fetch_from`](Self::fetch_from). To look for a free place without waiting, poll the
    /// future once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RateLimited`], at once, if no place frees before the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn reserve(&self) -> Result<Permit, Error> {
        // An option is whole between any two statements.
        let reserved = self.reserved.lock();
        let reserved = reserved.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(place) = reserved {
            return Ok(place);
        }
        let (urgency, timeout) = (self.urgency.clone(), self.fetch_timeout);
        self.rate_limit
            .acquire(self.class, urgency, self.deadline, timeout, &self.clock)
            .await
    }

    /// Fetches from a wrapped provider, which takes the [reserved](Self::reserve) place for its
    /// first request.
    ///
    /// The `fetch_timeout` or the deadline ends the wrapped provider, and not the wrapper: that goes
    /// on with the [`Timeout`](ErrorKind::Timeout), for up to 5 s more, and can release a lease or
    /// store the failure. If the wrapped provider sends nothing, the place is free again.
    ///
    /// ```
    /// use officernd_auth::{AccessToken, Error, FetchContext, RateLimit, TokenProvider};
    ///
    /// struct Stored<P>(P);
    ///
    /// impl<P: TokenProvider> TokenProvider for Stored<P> {
    ///     async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
    ///         let place = cx.reserve().await?;
    ///         // ... take a lease, or return the token that the store has ...
    ///         let result = cx.fetch_from(&self.0, place).await;
    ///         // ... store the token or the failure, and release the lease ...
    ///         result
    ///     }
    ///
    ///     fn rate_limit(&self) -> Option<RateLimit> {
    ///         self.0.rate_limit()
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let stored = Stored(officernd_auth::StaticToken::new("abc")?);
    /// # assert!(stored.fetch(FetchContext::default()).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the wrapped provider, and `Timeout`. If the connection for its last request was never
    /// made, [`backoff`](crate::backoff) for the error is 0.5 s, doubling to 5 s.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the wrapped fetch. A request that was sent still counts.
    pub async fn fetch_from<P: TokenProvider>(
        &self,
        inner: &P,
        place: Permit,
    ) -> Result<AccessToken, Error> {
        let cx = Self {
            reserved: Arc::new(Mutex::new(Some(place))),
            depth: self.depth + 1,
            ..self.clone()
        };
        let _nested = Nested::enter(self);
        let result = cx.run(inner.fetch(cx.clone())).await;
        result.map_err(|error| error.mark_unsent(self.was_unsent()))
    }

    /// Takes the fetch out of the line's last class, for caches whose last fetch failed
    /// permanently: the credentials are others than those that failed.
    #[must_use]
    pub fn not_failing(mut self) -> Self {
        self.class = self.class.filter(|(class, _)| *class != Class::Failing);
        self
    }

    /// Returns when the last token request of this fetch was sent, by the monotonic and the wall
    /// clock. `None` if nothing was sent: no permit was taken, or its connection was never made.
    #[must_use]
    pub fn sent_at(&self) -> Option<(Instant, SystemTime)> {
        self.last_sent().map(|at| (at.monotonic, at.wall))
    }

    pub(crate) fn last_sent(&self) -> Option<Now> {
        self.sent.borrow().at
    }

    /// Returns whether the connection for the last request was never made.
    pub(crate) fn was_unsent(&self) -> bool {
        self.sent.borrow().unsent
    }

    /// Runs a provider with this context: ends its token request after the `fetch_timeout`, and
    /// the whole when it should have stopped by itself.
    pub(crate) async fn run(
        &self,
        fetch: impl Future<Output = Result<AccessToken, Error>>,
    ) -> Result<AccessToken, Error> {
        let mut fetch = pin!(fetch);
        let mut sent = self.sent.subscribe();
        loop {
            let state = *sent.borrow_and_update();
            let (until, message) = self.stops_at(state);
            let given_up_at = later(until, GRACE);
            let timed_out = || {
                let error = Error::new(ErrorKind::Timeout, message);
                match state.at.is_some() || state.unsent {
                    true => error,
                    false => error.not_attempted(),
                }
            };
            let mut changed = pin!(sent.changed());
            let next = poll_fn(|cx| {
                if self.clock.now() >= given_up_at {
                    // The runtime stood still, and the cache has given the fetch up: a provider
                    // that goes on could send.
                    return Poll::Ready(Some(Err(timed_out())));
                }
                match fetch.as_mut().poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    // A permit moves the end.
                    Poll::Pending => changed.as_mut().poll(cx).map(|_| None),
                }
            });
            match timeout_at(&*self.clock, until, next).await {
                Some(Some(result)) => {
                    self.close_if_refused(&result);
                    return result;
                }
                Some(None) => {}
                None => return Err(timed_out()),
            }
        }
    }

    /// Closes the window if the server has answered 429 to a request of this provider: before a
    /// wrapper goes on, and by the server's own `Retry-After`.
    fn close_if_refused(&self, result: &Result<AccessToken, Error>) {
        let Err(error) = result else { return };
        let sent = *self.sent.borrow();
        let is_own = sent.at.is_some() && sent.depth == self.depth;
        if is_own && error.kind() == ErrorKind::RateLimited && !error.is_not_attempted() {
            self.rate_limit.refused(error.retry_after(), &*self.clock);
        }
    }

    /// When the provider is stopped, and the message of the error.
    fn stops_at(&self, sent: Sent) -> (Instant, &'static str) {
        let answered_by = sent.at.map(|at| later(at.monotonic, self.fetch_timeout));
        let (until, message) = match answered_by {
            None => (self.deadline, "no token request could be sent in time"),
            // A wrapper goes on when the request of its wrapped provider has timed out.
            Some(until) if sent.out > 0 && sent.depth == self.depth => {
                let message = "the token endpoint did not answer within the fetch timeout";
                return (until, message);
            }
            Some(until) => {
                let until = later(until, AFTER_REQUEST).max(self.deadline);
                (until, "the provider did not return in time")
            }
        };
        // What a wrapper has called stops by itself, and then the wrapper goes on.
        let until = match sent.nested > self.depth {
            true => later(until, AFTER_REQUEST),
            false => until,
        };
        (
            sent.goes_on_until.map_or(until, |it| it.max(until)),
            message,
        )
    }
}

/// What is known of the token requests of a fetch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// When the last permit was granted.
    at: Option<Now>,
    /// Permits that are out.
    out: u32,
    /// A request was sent, and is over.
    any: bool,
    /// The last permit was given back unsent.
    unsent: bool,
    /// How many wrappers are around the provider that took the last permit.
    depth: u32,
    /// Calls of `fetch_from` that run.
    nested: u32,
    /// 5 s after the last of them has ended.
    goes_on_until: Option<Instant>,
}

/// What a permit tells the fetch.
impl Flight for FetchContext {
    fn granted(&self) -> bool {
        if self.flight.as_ref().is_some_and(|flight| !flight.granted()) {
            return false;
        }
        let now = Now::read(&*self.clock);
        self.sent.send_modify(|sent| {
            sent.at = Some(now);
            sent.out += 1;
            sent.depth = self.depth;
            sent.unsent = false;
        });
        true
    }

    fn answered(&self, is_sent: bool) {
        self.sent.send_modify(|sent| {
            sent.out -= 1;
            sent.any |= is_sent;
            sent.unsent = !is_sent;
            if sent.out == 0 && !sent.any {
                // Nothing was sent: the deadline counts again.
                sent.at = None;
            }
        });
        if let Some(flight) = &self.flight {
            flight.answered(is_sent);
        }
    }
}

/// A call of `fetch_from` that runs.
struct Nested<'a>(&'a FetchContext);

impl<'a> Nested<'a> {
    fn enter(cx: &'a FetchContext) -> Self {
        cx.sent.send_modify(|sent| sent.nested += 1);
        Self(cx)
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        let goes_on_until = later(self.0.clock.now(), AFTER_REQUEST);
        self.0.sent.send_modify(|sent| {
            sent.nested -= 1;
            sent.goes_on_until = Some(goes_on_until);
        });
    }
}

impl Default for FetchContext {
    fn default() -> Self {
        let (_, urgency) = watch::channel(Urgency::Waiting);
        Self {
            cause: Cause::Manual,
            urgency,
            deadline: later(TokioClock.now(), Duration::from_secs(30)),
            fetch_timeout: Duration::from_secs(10),
            rate_limit: RateLimit::unlimited(),
            class: None,
            clock: Arc::new(TokioClock),
            previous: None,
            flight: None,
            sent: watch::Sender::default(),
            reserved: Arc::default(),
            depth: 0,
        }
    }
}

impl fmt::Debug for FetchContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchContext")
            .field("cause", &self.cause)
            .field("urgency", &self.urgency())
            .field("fetch_timeout", &self.fetch_timeout)
            .finish_non_exhaustive()
    }
}

/// Makes a provider from an async closure. It takes a [`permit`](FetchContext::permit) before
/// each call of the closure.
///
/// ```
/// use officernd_auth::{AccessToken, TokenCache, provider_fn};
/// use std::time::Duration;
///
/// let cache = TokenCache::new(provider_fn(|| async {
///     AccessToken::bearer("from-a-closure", Duration::from_secs(600))
/// }));
/// # drop(cache);
/// ```
pub fn provider_fn<F, Fut>(fetch: F) -> impl TokenProvider
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send,
{
    ProviderFn(fetch)
}

struct ProviderFn<F>(F);

impl<F, Fut> TokenProvider for ProviderFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send,
{
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        (self.0)().await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

/// A fixed token, which every fetch returns. It sends no request, so it takes no permit.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let layer = OfficeRndAuthLayer::new(StaticToken::new("from-the-environment")?);
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StaticToken {
    token: AccessToken,
}

impl StaticToken {
    /// Makes a provider of this one token.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] if the token has characters outside RFC 6750's `b64token`.
    pub fn new(token: impl Into<Secret>) -> Result<Self, Error> {
        let token = AccessToken::bearer(token, MAX_LIFE)?;
        Ok(Self { token })
    }
}

impl TokenProvider for StaticToken {
    async fn fetch(&self, _cx: FetchContext) -> Result<AccessToken, Error> {
        Ok(self.token.clone())
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}
