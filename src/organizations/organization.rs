//! A provider with the settings of its organization alone.

use std::fmt;
use std::sync::Arc;

use crate::error::ConfigError;
use crate::origin::OriginPolicy;
use crate::provider::{DynProvider, TokenProvider};
use crate::rate_limit::RateLimit;

/// An organization's provider, of any type, with settings for this organization
/// alone. Every [`TokenProvider`] converts into one. A clone shares the provider.
///
/// Restricted to its own origin, no token of one organization goes to the host
/// of another, such as a staging service, whatever slug a URL names:
///
/// ```
/// use officernd_auth::organizations::Organization;
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use std::collections::HashMap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let acme = Organization::new(StaticToken::new("production")?)
///     .restrict_to_origin("https://app.officernd.com")?;
/// let trial = Organization::new(StaticToken::new("staging")?)
///     .restrict_to_origin("https://staging.officernd.com")?;
/// let organizations = HashMap::from([("acme".to_owned(), acme), ("trial".to_owned(), trial)]);
/// let layer = OfficeRndAuthLayer::per_organization(organizations)
///     .allow_origin("https://staging.officernd.com")
///     .build()?;
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Organization {
    pub(super) provider: Arc<dyn DynProvider>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) origins: Option<OriginPolicy>,
}

impl Organization {
    /// An organization without settings of its own.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        Self {
            provider: Arc::new(provider),
            rate_limit: None,
            origins: None,
        }
    }

    /// Restricts this organization's token to the origin, written as in
    /// [`allow_origin`](crate::Builder::allow_origin). Called again, it adds
    /// another one. The layer has to allow the origin too.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] if the text is not a valid origin.
    pub fn restrict_to_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        let origins = self.origins.get_or_insert_with(OriginPolicy::empty);
        origins.allow(origin)?;
        Ok(self)
    }

    /// How many token requests may be sent, instead of what the layer's builder
    /// and the provider say. A clone shares the window.
    #[must_use]
    pub fn rate_limit(mut self, rate_limit: RateLimit) -> Self {
        self.rate_limit = Some(rate_limit);
        self
    }
}

impl<P: TokenProvider> From<P> for Organization {
    fn from(provider: P) -> Self {
        Self::new(provider)
    }
}

impl fmt::Debug for Organization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Organization")
            .field("rate_limit", &self.rate_limit)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}
