//! Providers mint tokens. They know OAuth and HTTP; they know no cache.

mod context;
mod simple;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) use self::context::Previous;
pub use self::context::{Cause, FetchContext};
pub use self::simple::{ProviderFn, StaticToken, provider_fn};

use crate::allowance::Allowance;
use crate::error::Error;
use crate::token::AccessToken;

/// Fetches one token when it is asked to.
///
/// A cache calls [`fetch`](Self::fetch) at most once at a time, in a task of
/// its own, under its `fetch_timeout` and its [`Allowance`]; a provider need
/// not retry, remember or limit anything. The future is dropped when the
/// timeout ends, and otherwise runs to its end, whoever stops waiting.
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
    /// ([`Error::is_transient`]) it backs off with jitter, or as
    /// [`Error::retry_after`] says; after a lasting one it holds for 60 s and
    /// more, and still tries again.
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send;

    /// The allowance that this provider's endpoint shares with others in the
    /// process. `None`: each cache has its own of 5 per 60 s.
    fn allowance(&self) -> Option<Allowance> {
        None
    }

    /// Whether this provider may answer without the token endpoint and so
    /// spends the allowance itself, by [`FetchContext::permit`], just before
    /// it sends. Then the whole fetch is bounded by the cache's
    /// `acquire_timeout`, and the provider bounds each try by
    /// [`FetchContext::fetch_timeout`].
    fn spends_allowance(&self) -> bool {
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

    fn allowance(&self) -> Option<Allowance> {
        P::allowance(self)
    }

    fn spends_allowance(&self) -> bool {
        P::spends_allowance(self)
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
    fn allowance(&self) -> Option<Allowance>;
    fn spends_allowance(&self) -> bool;
    #[expect(dead_code, reason = "a cache will call it while it backs off")]
    fn credentials_changed(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

impl<P: TokenProvider> DynProvider for P {
    fn fetch(&self, cx: FetchContext) -> FetchFuture<'_> {
        Box::pin(TokenProvider::fetch(self, cx))
    }

    fn allowance(&self) -> Option<Allowance> {
        TokenProvider::allowance(self)
    }

    fn spends_allowance(&self) -> bool {
        TokenProvider::spends_allowance(self)
    }

    fn credentials_changed(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(TokenProvider::credentials_changed(self))
    }
}
