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
/// its rate limit and takes its permits:
///
/// ```
/// use officernd_auth::{AccessToken, Error, FetchContext, RateLimit, TokenProvider};
///
/// struct Logged<P>(P);
///
/// impl<P: TokenProvider> TokenProvider for Logged<P> {
///     async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
///         println!("a token is fetched: {}", cx.cause().as_str());
///         self.0.fetch(cx).await
///     }
///
///     fn rate_limit(&self) -> Option<RateLimit> {
///         self.0.rate_limit()
///     }
/// }
/// # drop(Logged(officernd_auth::StaticToken::new("abc")));
/// ```
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

pub(crate) type FetchFuture<'a> =
    Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + 'a>>;

/// [`TokenProvider`] as an object: a cache has no type parameter. The box is
/// paid once a token, not once a request.
pub(crate) trait DynProvider: Send + Sync {
    fn fetch(&self, cx: FetchContext) -> FetchFuture<'_>;
    fn rate_limit(&self) -> Option<RateLimit>;
}

impl<P: TokenProvider> DynProvider for P {
    fn fetch(&self, cx: FetchContext) -> FetchFuture<'_> {
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
    /// The place in line, where the urgency does not decide it.
    pub(crate) class: Option<Class>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) previous: Option<Box<Previous>>,
    pub(crate) requests: Arc<Requests>,
    /// The place that a wrapper has reserved for the next request, and how many wrappers are
    /// around the provider.
    pub(crate) reserved: Arc<Mutex<Option<Permit>>>,
    pub(crate) depth: u32,
}

/// The token that is to be replaced.
#[derive(Clone)]
pub(crate) struct Previous {
    pub(crate) token: AccessToken,
    pub(crate) ends_at: Instant,
    /// When requests stop carrying it.
    pub(crate) serves_until: Instant,
}

impl FetchContext {
    /// Returns why the token is fetched.
    ///
    /// ```
    /// use officernd_auth::FetchContext;
    /// use officernd_auth::provider::Cause;
    ///
    /// assert_eq!(FetchContext::default().cause(), Cause::Manual);
    /// ```
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns whether requests wait for the token now. A request that joins makes a
    /// background fetch urgent.
    ///
    /// ```
    /// use officernd_auth::FetchContext;
    /// use officernd_auth::rate_limit::Urgency;
    ///
    /// assert_eq!(FetchContext::default().urgency(), Urgency::Waiting);
    /// ```
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        *self.urgency.borrow()
    }

    /// Returns when the fetch is given up if it holds no permit, on the cache's [`Clock`].
    ///
    /// ```
    /// let cx = officernd_auth::FetchContext::default();
    /// assert!(cx.deadline() > cx.clock().now());
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns how long one request to the token endpoint may take. The cache enforces it from
    /// the [`permit`](Self::permit) on.
    ///
    /// ```
    /// let cx = officernd_auth::FetchContext::default();
    /// assert_eq!(cx.fetch_timeout().as_secs(), 10);
    /// ```
    #[must_use]
    pub fn fetch_timeout(&self) -> Duration {
        self.fetch_timeout
    }

    /// Returns the cache's clock. A provider reads no other, so that tests can pause time.
    ///
    /// ```
    /// let cx = officernd_auth::FetchContext::default();
    /// let started = cx.clock().now();
    /// assert!(cx.clock().now() >= started);
    /// ```
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Returns the token that the cache has and wants replaced: expired, about to be,
    /// or, if the [`cause`](Self::cause) says so, rejected by a server. A
    /// provider that keeps tokens must not answer with a rejected one.
    ///
    /// ```
    /// use officernd_auth::provider::Cause;
    /// use officernd_auth::{AccessToken, FetchContext};
    ///
    /// fn may_hand_out(stored: &AccessToken, cx: &FetchContext) -> bool {
    ///     let same = |old: &AccessToken| old.header_value() == stored.header_value();
    ///     cx.cause() != Cause::Rejected || !cx.previous().is_some_and(same)
    /// }
    /// # let stored = AccessToken::bearer("t", std::time::Duration::from_secs(60)).unwrap();
    /// # assert!(may_hand_out(&stored, &FetchContext::default()));
    /// ```
    #[must_use]
    pub fn previous(&self) -> Option<&AccessToken> {
        self.previous.as_ref().map(|previous| &previous.token)
    }

    /// Returns what is left of the life of the [`previous`](Self::previous) token.
    ///
    /// ```
    /// use officernd_auth::{AccessToken, FetchContext};
    ///
    /// fn is_better(stored: &AccessToken, cx: &FetchContext) -> bool {
    ///     cx.previous_left().is_none_or(|left| stored.expires_in() > left)
    /// }
    /// # let stored = AccessToken::bearer("t", std::time::Duration::from_secs(60)).unwrap();
    /// # assert!(is_better(&stored, &FetchContext::default()));
    /// ```
    #[must_use]
    pub fn previous_left(&self) -> Option<Duration> {
        let previous = self.previous.as_ref()?;
        Some(previous.ends_at.saturating_duration_since(self.clock.now()))
    }

    /// Returns requests and window of the rate limit. `None` is unlimited.
    ///
    /// ```
    /// assert_eq!(officernd_auth::FetchContext::default().limit(), None);
    /// ```
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
    /// ```
    /// use officernd_auth::{AccessToken, Error, FetchContext};
    /// use std::time::Duration;
    ///
    /// async fn fetch(cx: FetchContext) -> Result<AccessToken, Error> {
    ///     let permit = cx.permit().await?;
    ///     // ... send the request, and read the answer ...
    ///     drop(permit);
    ///     AccessToken::bearer("from-the-endpoint", Duration::from_secs(600))
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() { assert!(fetch(FetchContext::default()).await.is_ok()); }
    /// ```
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
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), officernd_auth::Error> {
    /// let cx = officernd_auth::FetchContext::default();
    /// let place = cx.reserve().await?;
    /// // The store has a token, so no request is needed.
    /// drop(place);
    /// assert!(cx.sent_at().is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RateLimited`], at once, if no place frees before the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn reserve(&self) -> Result<Permit, Error> {
        let reserved = self.lock_reserved().take();
        if let Some(place) = reserved {
            return Ok(place);
        }
        let (urgency, timeout) = (self.urgency.clone(), self.fetch_timeout);
        // Requests wait for a rejected token's replacement from its end on.
        let serves = |now| {
            let previous = self.previous.as_ref();
            previous.is_some_and(|previous| now < previous.serves_until)
        };
        let class = |now| {
            self.class
                .filter(|class| *class != Class::Rejected || serves(now))
        };
        self.rate_limit
            .acquire(class, urgency, self.deadline, timeout, &self.clock)
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
        let _nested = Nested::enter(&self.requests, &*self.clock);
        let result = cx.run(inner.fetch(cx.clone())).await;
        result.map_err(|error| error.mark_unsent(self.was_unsent()))
    }

    /// Takes the fetch out of the line's last class, for caches whose last fetch failed
    /// permanently: the credentials are others than those that failed.
    ///
    /// ```
    /// use officernd_auth::FetchContext;
    /// use officernd_auth::provider::KeyMaterial;
    ///
    /// fn context(cx: FetchContext, refused: Option<&KeyMaterial>, now: &KeyMaterial) -> FetchContext {
    ///     match refused {
    ///         Some(refused) if refused == now => cx,
    ///         _ => cx.not_failing(),
    ///     }
    /// }
    /// # let material = KeyMaterial::new("https://identity.example/token", "my-app", "hunter2");
    /// # drop(context(FetchContext::default(), None, &material));
    /// ```
    #[must_use]
    pub fn not_failing(mut self) -> Self {
        self.class = self.class.filter(|class| *class != Class::Failing);
        self
    }

    /// Returns when the last token request of this fetch was sent, by the monotonic and the wall
    /// clock. `None` if nothing was sent: no permit was taken, or its connection was never made.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), officernd_auth::Error> {
    /// let cx = officernd_auth::FetchContext::default();
    /// let permit = cx.permit().await?;
    /// assert!(cx.sent_at().is_some());
    /// permit.unsent();
    /// assert!(cx.sent_at().is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sent_at(&self) -> Option<(Instant, SystemTime)> {
        let sent_at = self.last_sent()?;
        Some((sent_at.monotonic, sent_at.wall))
    }

    pub(crate) fn last_sent(&self) -> Option<Now> {
        self.requests.sent.borrow().at
    }

    /// Returns whether the connection for the last request was never made.
    pub(crate) fn was_unsent(&self) -> bool {
        self.requests.sent.borrow().unsent
    }

    /// Runs a provider with this context: ends its token request after the `fetch_timeout`, and
    /// the whole when it should have stopped by itself.
    pub(crate) async fn run(
        &self,
        fetch: impl Future<Output = Result<AccessToken, Error>>,
    ) -> Result<AccessToken, Error> {
        let mut fetch = pin!(fetch);
        let mut sent = self.requests.sent.subscribe();
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
        let sent = *self.requests.sent.borrow();
        let is_own = sent.at.is_some() && sent.depth == self.depth;
        if is_own && error.kind() == ErrorKind::RateLimited && !error.is_not_attempted() {
            self.rate_limit.refused(error.retry_after(), &*self.clock);
        }
    }

    /// When the provider is stopped, and the message of the error.
    fn stops_at(&self, sent: Sent) -> (Instant, &'static str) {
        // What a wrapper has called stops by itself, and then the wrapper goes on.
        let grace = match sent.nested > self.depth {
            true => AFTER_REQUEST,
            false => Duration::ZERO,
        };
        let at_least = |until: Instant| sent.goes_on_until.map_or(until, |it| it.max(until));
        let Some(sent_at) = sent.at else {
            let until = at_least(later(self.deadline, grace));
            return (until, "no token request could be sent in time");
        };
        let answered_by = later(sent_at.monotonic, self.fetch_timeout);
        // A wrapper goes on when the request of its wrapped provider has timed out.
        if sent.out > 0 && sent.depth == self.depth {
            let message = "the token endpoint did not answer within the fetch timeout";
            return (answered_by, message);
        }
        let until = later(answered_by, AFTER_REQUEST).max(self.deadline);
        let until = at_least(later(until, grace));
        (until, "the provider did not return in time")
    }

    fn lock_reserved(&self) -> std::sync::MutexGuard<'_, Option<Permit>> {
        // An option is whole between any two statements.
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token requests of one try of a fetch, which all its contexts share.
pub(crate) struct Requests {
    /// The cache.
    flight: Option<Box<dyn Flight>>,
    sent: watch::Sender<Sent>,
}

/// What is known of the token requests of a fetch.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
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

impl Requests {
    pub(crate) fn new(flight: Option<Box<dyn Flight>>) -> Arc<Self> {
        Arc::new(Self {
            flight,
            sent: watch::Sender::default(),
        })
    }
}

/// What a permit tells the fetch.
impl Flight for FetchContext {
    fn granted(&self) -> bool {
        let Requests { flight, sent } = &*self.requests;
        if !flight.as_ref().is_none_or(|flight| flight.granted()) {
            return false;
        }
        let now = Now::read(&*self.clock);
        sent.send_modify(|sent| {
            sent.at = Some(now);
            sent.out += 1;
            sent.depth = self.depth;
            sent.unsent = false;
        });
        true
    }

    fn answered(&self, is_sent: bool) {
        let Requests { flight, sent } = &*self.requests;
        sent.send_modify(|sent| {
            sent.out -= 1;
            sent.any |= is_sent;
            sent.unsent = !is_sent;
            if sent.out == 0 && !sent.any {
                // Nothing was sent: the deadline counts again.
                sent.at = None;
            }
        });
        if let Some(flight) = flight {
            flight.answered(is_sent);
        }
    }
}

/// A call of `fetch_from` that runs.
struct Nested<'a>(&'a Requests, &'a dyn Clock);

impl<'a> Nested<'a> {
    fn enter(requests: &'a Requests, clock: &'a dyn Clock) -> Self {
        requests.sent.send_modify(|sent| sent.nested += 1);
        Self(requests, clock)
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        let goes_on_until = later(self.1.now(), AFTER_REQUEST);
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
            requests: Requests::new(None),
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
pub fn provider_fn<F, Fut>(fetch: F) -> ProviderFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send,
{
    ProviderFn { fetch }
}

/// The provider that [`provider_fn`] returns.
///
/// ```
/// use officernd_auth::{AccessToken, provider_fn};
/// use officernd_auth::provider::ProviderFn;
///
/// fn named<F>(provider: ProviderFn<F>) -> ProviderFn<F> {
///     provider
/// }
/// let life = std::time::Duration::from_secs(60);
/// let provider = named(provider_fn(move || async move { AccessToken::bearer("t", life) }));
/// # drop(provider);
/// ```
#[derive(Clone)]
pub struct ProviderFn<F> {
    fetch: F,
}

impl<F, Fut> TokenProvider for ProviderFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send,
{
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        (self.fetch)().await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

impl<F> fmt::Debug for ProviderFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderFn").finish_non_exhaustive()
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
