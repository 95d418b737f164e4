//! What a provider can know about a fetch.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::clock::{Clock, TokioClock, later};
use crate::error::Error;
use crate::rate_limit::{Class, Permit, RateLimit, Urgency};
use crate::token::AccessToken;

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
/// [`Default`] gives one for trying out a provider by hand: no limit, 30 s.
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
    /// Counts the token requests that were sent and are over.
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) previous: Option<Box<Previous>>,
}

/// The token that is to be replaced.
#[derive(Clone)]
#[cfg_attr(
    not(feature = "store"),
    expect(dead_code, reason = "for shared stores")
)]
pub(crate) struct Previous {
    pub(crate) token: AccessToken,
    pub(crate) ends_at: Instant,
}

impl FetchContext {
    /// Why the token is fetched.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether requests wait for it now. A request that joins makes a
    /// background fetch urgent.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        *self.urgency.borrow()
    }

    /// When the fetch is given up, on the cache's [`Clock`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long one request to the token endpoint may take.
    #[must_use]
    pub fn fetch_timeout(&self) -> Duration {
        self.fetch_timeout
    }

    /// The cache's clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The token that the cache has and wants replaced: expired, about to be,
    /// or, if the [`cause`](Self::cause) says so, rejected by a server. A
    /// provider that keeps tokens must not answer with a rejected one.
    #[must_use]
    pub fn previous(&self) -> Option<&AccessToken> {
        self.previous.as_ref().map(|previous| &previous.token)
    }

    /// Takes one token request of the [`RateLimit`], waiting for its turn if need be.
    /// Hold the permit until the answer is there: the request counts until a
    /// whole window after that.
    ///
    /// A cache has taken one before it calls `fetch`, unless the provider
    /// [spends itself](super::TokenProvider::takes_permits): call this
    /// before each request beyond that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RateLimited`](crate::ErrorKind::RateLimited), at once, if
    /// none frees before the deadline; `retry_after` says when.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn permit(&self) -> Result<Permit, Error> {
        Ok(self.spend(self.reserve().await?))
    }

    /// Requests and window of the rate limit; `None` is unlimited.
    #[cfg(feature = "store")]
    pub(crate) fn limit(&self) -> Option<(u32, Duration)> {
        self.rate_limit.limit()
    }

    /// A permit that no request has used yet: dropped, it goes back.
    pub(crate) async fn reserve(&self) -> Result<Permit, Error> {
        let (urgency, timeout) = (self.urgency.clone(), self.fetch_timeout);
        self.rate_limit
            .acquire(self.class, urgency, self.deadline, timeout, &self.clock)
            .await
    }

    /// Takes the place of a token request that is about to be sent.
    pub(crate) fn spend(&self, permit: Permit) -> Permit {
        permit.sent(&self.sent)
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
            sent: Arc::default(),
            previous: None,
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
