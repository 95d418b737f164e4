//! A provider without its type.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::{DynProvider, FetchContext, TokenProvider};
use crate::error::Error;
use crate::rate_limit::RateLimit;
use crate::token::AccessToken;

/// A provider of any type: for a map or a resolver whose organizations get
/// their tokens in different ways. A clone shares the provider.
///
/// ```
/// use officernd_auth::provider::BoxProvider;
/// use officernd_auth::{AccessToken, OfficeRndAuthLayer, StaticToken, provider_fn};
/// use std::collections::HashMap;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let vault = provider_fn(|| async {
///     AccessToken::bearer("from-the-vault", Duration::from_secs(600))
/// });
/// let providers = HashMap::from([
///     ("acme".to_owned(), BoxProvider::new(StaticToken::new("a-token")?)),
///     ("globex".to_owned(), BoxProvider::new(vault)),
/// ]);
/// let layer = OfficeRndAuthLayer::per_organization(providers).build()?;
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BoxProvider {
    inner: Arc<dyn DynProvider>,
}

impl BoxProvider {
    /// Hides the type of the provider.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        Self {
            inner: Arc::new(provider),
        }
    }
}

impl TokenProvider for BoxProvider {
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        DynProvider::fetch(&*self.inner, cx)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        DynProvider::rate_limit(&*self.inner)
    }

    fn takes_permits(&self) -> bool {
        DynProvider::takes_permits(&*self.inner)
    }

    fn credentials_changed(&self) -> impl Future<Output = bool> + Send {
        DynProvider::credentials_changed(&*self.inner)
    }
}

impl fmt::Debug for BoxProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxProvider").finish_non_exhaustive()
    }
}
