//! Closures and fixed tokens are providers too.

use std::fmt;
use std::future::Future;

use super::{FetchContext, TokenProvider};
use crate::error::Error;
use crate::secret::Secret;
use crate::token::{AccessToken, MAX_LIFE};

/// Makes a provider from an async closure.
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
    fn fetch(&self, _cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        (self.fetch)()
    }
}

impl<F> fmt::Debug for ProviderFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderFn").finish_non_exhaustive()
    }
}

/// A fixed token, which every fetch returns.
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
    /// A provider that knows this one token.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if the token has
    /// characters outside RFC 6750's `b64token`.
    pub fn new(token: impl Into<Secret>) -> Result<Self, Error> {
        let token = AccessToken::bearer(token, MAX_LIFE)?;
        Ok(Self { token })
    }
}

impl TokenProvider for StaticToken {
    async fn fetch(&self, _cx: FetchContext) -> Result<AccessToken, Error> {
        Ok(self.token.clone())
    }

    /// No request is sent, so none is counted.
    fn takes_permits(&self) -> bool {
        true
    }
}
