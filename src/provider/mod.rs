//! Providers fetch tokens. They know neither caches nor requests.

mod boxed;
mod context;
mod simple;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use self::boxed::BoxProvider;
pub(crate) use self::context::Previous;
pub use self::context::{Cause, FetchContext};
pub use self::simple::{ProviderFn, StaticToken, provider_fn};

use crate::error::Error;
use crate::rate_limit::RateLimit;
use crate::token::AccessToken;

/// Fetches tokens, one per call.
///
/// A cache calls [`fetch`](Self::fetch) at most once at a time, in a task of
/// its own, under its `fetch_timeout` and its [`RateLimit`]; a provider need
/// not retry, remember or limit anything. The future is dropped when the
/// timeout ends. Otherwise it runs to its end, also when no caller waits any more.
///
/// ```
/// use officernd_auth::{AccessToken, Error, FetchContext, TokenCache, TokenProvider};
/// use std::time::Duration;
///
/// struct Vault;
///
/// impl TokenProvider for Vault {
///     async fn fetch(&self, _cx: FetchContext) -> Result<AccessToken, Error> {
///         AccessToken::bearer("from-the-vault", Duration::from_secs(600))
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
pub trait TokenProvider: Send + Sync + 'static {
    /// Fetches a new token.
    ///
    /// # Errors
    ///
    /// The kind decides what the cache does next: after a transient kind
    /// ([`Error::is_transient`]) it backs off for up to 60 s, with jitter; after
    /// `RateLimited` for 30 to 60 s, doubling to 15 min; after any other for 60 s, doubling to 10 min, or to 60 min where several caches
    /// share a rate limit. If [`Error::retry_after`] is longer, for that time.
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send;

    /// The rate limit that this provider shares with others in the process. The
    /// default is `None`: each cache has its own of 5 per 60 s. A rate limit
    /// that the builder names is used instead.
    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }

    /// Whether this provider takes its permits itself, by
    /// [`FetchContext::permit`], just before it sends: because it may return a
    /// token without asking the token endpoint. Such a provider bounds each
    /// request by [`FetchContext::fetch_timeout`] and sends none after
    /// [`FetchContext::deadline`]; the cache gives the fetch up `fetch_timeout`
    /// and 5 s after that. Default: `false`.
    fn takes_permits(&self) -> bool {
        false
    }

    /// Whether the credentials have changed since the last fetch was sent. A
    /// cache calls this while it backs off after
    /// [`InvalidClient`](crate::ErrorKind::InvalidClient), at most every 5 s,
    /// and ends the backoff when the answer is `true`. It gives up on the
    /// future after the `fetch_timeout`.
    fn credentials_changed(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }
}

impl<P: TokenProvider> TokenProvider for Arc<P> {
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        P::fetch(self, cx)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        P::rate_limit(self)
    }

    fn takes_permits(&self) -> bool {
        P::takes_permits(self)
    }

    fn credentials_changed(&self) -> impl Future<Output = bool> + Send {
        P::credentials_changed(self)
    }
}

pub(crate) type FetchFuture<'a> =
    Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + 'a>>;

/// [`TokenProvider`] as an object: a cache has no type parameter. The box is
/// paid once a token, not once a request.
pub(crate) trait DynProvider: Send + Sync {
    fn fetch(&self, cx: FetchContext) -> FetchFuture<'_>;
    fn rate_limit(&self) -> Option<RateLimit>;
    fn takes_permits(&self) -> bool;
    fn credentials_changed(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

impl<P: TokenProvider> DynProvider for P {
    fn fetch(&self, cx: FetchContext) -> FetchFuture<'_> {
        Box::pin(TokenProvider::fetch(self, cx))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        TokenProvider::rate_limit(self)
    }

    fn takes_permits(&self) -> bool {
        TokenProvider::takes_permits(self)
    }

    fn credentials_changed(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(TokenProvider::credentials_changed(self))
    }
}
