//! Token providers, and the context of a fetch.

mod key;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::watch;

pub use self::key::{KeyMaterial, KeyedProvider};
use crate::clock::{Clock, Now, TokioClock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::rate_limit::{Class, Permit, RateLimit, Urgency};
use crate::secret::Secret;
use crate::token::{AccessToken, MAX_LIFE};

/// How long a provider may run after the time limit of its token request, and a wrapper after the
/// wrapped provider. A store needs this time to store the token and to release its lease.
const AFTER_REQUEST: Duration = Duration::from_secs(5);

/// How late a fetch may stop. After that, it is given up.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Fetches tokens, one per call.
///
/// A cache runs at most one [`fetch`](Self::fetch) at a time, in a separate task that no caller can
/// cancel. A provider does not retry, cache or limit requests. It calls [`FetchContext::permit`]
/// right before it sends a token request, and holds the permit until the response has arrived.
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
///         // ... read it from the vault ...
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
/// While the provider holds a permit, the fetch ends `fetch_timeout` after the permit was granted:
/// the future is dropped, and the fetch fails with [`Timeout`](ErrorKind::Timeout). Without a permit
/// the future is dropped at the [`deadline`](FetchContext::deadline). After its request, a provider
/// may run until 5 s after the end of the `fetch_timeout`, or until the deadline if that is later.
///
/// # Wrapping providers
///
/// A wrapper forwards both methods, so that the wrapped provider shares its rate limit and takes its
/// permits. A wrapper that does more after the token request, such as storing the token for other
/// processes, calls the wrapped provider through [`FetchContext::fetch_from`]. After that call, a
/// wrapper may run for at least 5 s.
pub trait TokenProvider: Send + Sync + 'static {
    /// Fetches a new token.
    ///
    /// The lifetime of the token counts from the last [`permit`](FetchContext::permit), or from the
    /// start of the fetch without a permit.
    ///
    /// # Errors
    ///
    /// The kind of the error decides the backoff, as in the table of [`backoff`](crate::backoff). A
    /// longer [`Error::retry_after`] takes precedence.
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send;

    /// Returns the rate limit that this provider shares with others in the process. With `None`,
    /// each cache has its own limit of 5 requests per 60 s. A rate limit on the builder replaces
    /// either.
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

/// The object-safe form of [`TokenProvider`].
pub(crate) trait DynProvider: Send + Sync {
    fn fetch(
        &self,
        cx: FetchContext,
    ) -> Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + '_>>;
}

impl<P: TokenProvider> DynProvider for P {
    fn fetch(
        &self,
        cx: FetchContext,
    ) -> Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + '_>> {
        Box::pin(TokenProvider::fetch(self, cx))
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
    /// The cache has not had a token yet.
    Cold,
    /// The token is due for its refresh ahead of its expiry.
    Ahead,
    /// The token has expired, or is within `expiry_margin` of its expiry.
    Expired,
    /// A server answered 401 to the token.
    Rejected,
    /// [`TokenCache::refresh`](crate::TokenCache::refresh) was called.
    Manual,
}

impl Cause {
    /// Returns the stable name of the cause in logs and metrics.
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

/// The context of one fetch: its cause, urgency and deadline, and access to the [`RateLimit`].
///
/// A clone belongs to the same fetch. [`Default`] creates a context for calling a provider directly:
/// without a rate limit, with a deadline in 30 s and a `fetch_timeout` of 10 s.
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
    /// The priority until the given time. Without it the urgency decides.
    pub(crate) class: Option<(Class, Instant)>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The token to replace, and its expiry.
    pub(crate) previous: Option<(AccessToken, Instant)>,
    /// Tells the cache when the fetch stops at the latest. Returns `false` if the cache has given the
    /// fetch up.
    pub(crate) stops: Option<Arc<dyn Fn(Instant) -> bool + Send + Sync>>,
    /// Counts the token requests of the cache.
    pub(crate) requests: Arc<AtomicU64>,
    /// The token requests of one attempt, shared with the contexts of wrapped providers.
    pub(crate) sent: watch::Sender<Sent>,
    /// The permit that a wrapper has reserved for the next request.
    pub(crate) reserved: Arc<Mutex<Option<Permit>>>,
    /// The number of wrappers around the provider.
    pub(crate) depth: u32,
}

impl FetchContext {
    /// Returns why the token is fetched.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns whether requests are waiting for the token. A request that joins a background fetch
    /// makes it urgent.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        *self.urgency.borrow()
    }

    /// Returns when the fetch ends if it holds no permit, on the cache's [`Clock`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns how long one token request may take. The cache enforces it from the
    /// [`permit`](Self::permit) on.
    #[must_use]
    pub fn fetch_timeout(&self) -> Duration {
        self.fetch_timeout
    }

    /// Returns the cache's clock. Use no other clock, so that tests can pause time.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Returns the token to replace: expired, about to expire, or rejected by a server, depending on
    /// the [`cause`](Self::cause). A provider that stores tokens must not return a rejected one.
    #[must_use]
    pub fn previous(&self) -> Option<&AccessToken> {
        self.previous.as_ref().map(|(token, _)| token)
    }

    /// Returns the time until the [`previous`](Self::previous) token expires.
    #[must_use]
    pub fn previous_left(&self) -> Option<Duration> {
        let (_, ends_at) = self.previous.as_ref()?;
        Some(ends_at.saturating_duration_since(self.clock.now()))
    }

    /// Returns the number of requests and the window of the rate limit. `None` is unlimited.
    #[must_use]
    pub fn limit(&self) -> Option<(u32, Duration)> {
        self.rate_limit.limit()
    }

    /// Takes a permit for one token request, waiting for the [`RateLimit`] if needed.
    ///
    /// Call it right before sending: the lifetime of the token and the `fetch_timeout` count from
    /// here. Hold the permit until the response has arrived: the request counts until one window
    /// after that. If the connection was never made, call [`Permit::unsent`].
    ///
    /// Inside [`fetch_from`](Self::fetch_from) the first call takes the permit that the wrapper has
    /// reserved.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::RateLimited`] at once if no permit is available before the deadline;
    /// `retry_after` says when. Returns [`ErrorKind::Runtime`] if the cache has given the fetch up,
    /// which then must not send anything.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, no permit is taken.
    pub async fn permit(&self) -> Result<Permit, Error> {
        let permit = self.reserve().await?;
        let now = Now::read(&*self.clock);
        if !self.tell_cache(later(now.monotonic, self.fetch_timeout)) {
            return Err(given_up());
        }
        self.sent.send_modify(|sent| {
            sent.at = Some(now);
            sent.out += 1;
            sent.depth = self.depth;
            sent.unsent = false;
        });
        let cx = self.clone();
        Ok(permit.sent(move |is_sent| cx.request_ended(is_sent)))
    }

    fn request_ended(&self, is_sent: bool) {
        self.sent.send_modify(|sent| {
            sent.out -= 1;
            sent.any |= is_sent;
            sent.unsent = !is_sent;
            if sent.out == 0 && !sent.any {
                // Nothing was sent: the deadline applies again.
                sent.at = None;
            }
        });
        if is_sent {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the cache when the fetch stops at the latest. Returns `false` if it was given up.
    fn tell_cache(&self, until: Instant) -> bool {
        self.stops.as_ref().is_none_or(|stops| stops(until))
    }

    /// Reserves a permit for one token request without counting the request. Dropping it releases it.
    ///
    /// A wrapper that needs a permit before it uses a store passes it to
    /// [`fetch_from`](Self::fetch_from). To check for a free permit without waiting, poll the future
    /// once.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::RateLimited`] at once if no permit is available before the deadline.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, no permit is taken.
    pub async fn reserve(&self) -> Result<Permit, Error> {
        // An option is consistent even after a panic.
        let reserved = self.reserved.lock();
        let reserved = reserved.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(permit) = reserved {
            return Ok(permit);
        }
        let (urgency, timeout) = (self.urgency.clone(), self.fetch_timeout);
        self.rate_limit
            .acquire(self.class, urgency, self.deadline, timeout, &self.clock)
            .await
    }

    /// Fetches from a wrapped provider, which takes the [reserved](Self::reserve) permit for its first
    /// request.
    ///
    /// The `fetch_timeout` or the deadline ends the wrapped provider, but not the wrapper. The wrapper
    /// gets the [`Timeout`](ErrorKind::Timeout), and has 5 s more to release a lease or store the
    /// failure. If the wrapped provider sends nothing, the permit is released.
    ///
    /// ```
    /// use officernd_auth::{AccessToken, Error, FetchContext, RateLimit, TokenProvider};
    ///
    /// struct Stored<P>(P);
    ///
    /// impl<P: TokenProvider> TokenProvider for Stored<P> {
    ///     async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
    ///         let permit = cx.reserve().await?;
    ///         // ... take a lease, or return the token that the store has ...
    ///         let result = cx.fetch_from(&self.0, permit).await;
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
    /// Returns the error of the wrapped provider, or `Timeout`. If the connection for its last request
    /// was never made, the [`backoff`](crate::backoff) of the error is 0.5 s, doubling to 5 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the wrapped fetch. A request that was sent still counts.
    pub async fn fetch_from<P: TokenProvider>(
        &self,
        inner: &P,
        permit: Permit,
    ) -> Result<AccessToken, Error> {
        let cx = Self {
            reserved: Arc::new(Mutex::new(Some(permit))),
            depth: self.depth + 1,
            ..self.clone()
        };
        let _nested = Nested::enter(self);
        let result = cx.run(inner.fetch(cx.clone())).await;
        result.map_err(|error| error.mark_unsent(self.was_unsent()))
    }

    /// Removes the fetch from the queue's last class, which is for caches whose last fetch failed
    /// permanently. Use it when the credentials have changed since.
    #[must_use]
    pub fn not_failing(mut self) -> Self {
        self.class = self.class.filter(|(class, _)| *class != Class::Failing);
        self
    }

    /// Returns when the last token request of this fetch was sent, by the monotonic and the wall
    /// clock. `None` if no permit was taken, or if its connection was never made.
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

    /// Runs the provider of this context. Enforces the `fetch_timeout` of a token request and the time
    /// limit of the provider.
    pub(crate) async fn run(
        &self,
        fetch: impl Future<Output = Result<AccessToken, Error>>,
    ) -> Result<AccessToken, Error> {
        let mut fetch = pin!(fetch);
        let mut sent = self.sent.subscribe();
        loop {
            let state = *sent.borrow_and_update();
            let (until, message) = self.stops_at(state);
            // Behind a wrapper, too, the time limit of a running request decides when the cache gives it up.
            let told = match state.at.filter(|_| state.out > 0) {
                Some(at) => later(at.monotonic, self.fetch_timeout),
                None => until,
            };
            // After its request, a fetch that was given up may still end: a wrapper releases its lease. It gets
            // no other permit.
            let has_asked = state.at.is_some() || state.unsent;
            if self.depth == 0 && !self.tell_cache(told) && !has_asked {
                return Err(given_up());
            }
            let until = self.extended(until, state);
            let given_up_at = later(until, GRACE);
            let timed_out = || {
                let error = Error::new(ErrorKind::Timeout, message);
                match has_asked {
                    true => error,
                    false => error.not_attempted(),
                }
            };
            let mut changed = pin!(sent.changed());
            let next = poll_fn(|cx| {
                if self.clock.now() >= given_up_at {
                    // The runtime was blocked, and the cache may have given the fetch up: a provider
                    // that continues could send.
                    return Poll::Ready(Some(Err(timed_out())));
                }
                match fetch.as_mut().poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    // A permit changes when the provider stops.
                    Poll::Pending => changed.as_mut().poll(cx).map(|_| None),
                }
            });
            match timeout_at(&*self.clock, until, pin!(next)).await {
                Some(Some(result)) => {
                    self.close_if_refused(&result);
                    return result;
                }
                Some(None) => {}
                None => return Err(timed_out()),
            }
        }
    }

    /// Closes the window if the server has answered 429 to a request of this provider. Runs before a
    /// wrapper continues, because the wrapper may change the `Retry-After`.
    fn close_if_refused(&self, result: &Result<AccessToken, Error>) {
        let Err(error) = result else { return };
        let sent = *self.sent.borrow();
        let is_own = sent.at.is_some() && sent.depth == self.depth;
        if is_own && error.kind() == ErrorKind::RateLimited && !error.is_not_attempted() {
            self.rate_limit.refused(error.retry_after(), &*self.clock);
        }
    }

    /// Returns when the provider stops, and the message of the error.
    fn stops_at(&self, sent: Sent) -> (Instant, &'static str) {
        let Some(at) = sent.at else {
            return (self.deadline, "no token request could be sent in time");
        };
        let answered_by = later(at.monotonic, self.fetch_timeout);
        if sent.awaits_response_at(self.depth) {
            let message = "the token endpoint did not answer within the fetch timeout";
            return (answered_by, message);
        }
        let until = later(answered_by, AFTER_REQUEST).max(self.deadline);
        (until, "the provider did not return in time")
    }

    /// Extends the time of a wrapper, which continues after the provider that it has called.
    fn extended(&self, until: Instant, sent: Sent) -> Instant {
        if sent.awaits_response_at(self.depth) {
            return until;
        }
        let until = match sent.nested > self.depth {
            true => later(until, AFTER_REQUEST),
            false => until,
        };
        sent.wrapper_until.map_or(until, |at| at.max(until))
    }
}

/// The token requests of an attempt.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// When the last permit was granted.
    at: Option<Now>,
    /// The number of permits that are held.
    out: u32,
    /// Whether a request was sent and has ended.
    any: bool,
    /// Whether the connection for the last request was never made.
    unsent: bool,
    /// The number of wrappers around the provider that took the last permit.
    depth: u32,
    /// The number of running calls of `fetch_from`.
    nested: u32,
    /// 5 s after the last call of `fetch_from` ended.
    wrapper_until: Option<Instant>,
}

impl Sent {
    /// Returns `true` if the provider at this depth waits for the response to its request.
    fn awaits_response_at(self, depth: u32) -> bool {
        self.at.is_some() && self.out > 0 && self.depth == depth
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Runtime, "the cache has given this fetch up").not_attempted()
}

/// A running call of `fetch_from`.
struct Nested<'a>(&'a FetchContext);

impl<'a> Nested<'a> {
    fn enter(cx: &'a FetchContext) -> Self {
        cx.sent.send_modify(|sent| sent.nested += 1);
        Self(cx)
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        let until = later(self.0.clock.now(), AFTER_REQUEST);
        self.0.sent.send_modify(|sent| {
            sent.nested -= 1;
            sent.wrapper_until = Some(until);
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
            stops: None,
            requests: Arc::default(),
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

/// Creates a provider from an async closure. It takes a [`permit`](FetchContext::permit) before each
/// call of the closure.
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

/// A provider that returns a fixed token. It sends no request, so it takes no permit.
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
    /// Creates a provider of this token.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Malformed`] if the token has characters outside RFC 6750's `b64token`.
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
