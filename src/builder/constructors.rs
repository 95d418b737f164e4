//! Where layers and builders come from.

use std::fmt;
use std::sync::Arc;

use super::Builder;
use crate::cache::TokenCache;
use crate::clock::{Clock, TokioClock};
#[cfg(feature = "reqwest")]
use crate::error::ConfigError;
use crate::middleware::{OfficeRndAuthLayer, Policy};
use crate::organizations::{OrganizationResolver, Resolve};
use crate::provider::{DynProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::settings::Settings;

impl OfficeRndAuthLayer {
    /// Builds a layer with the settings of the environment: `OFFICERND_CLIENT_ID`,
    /// `OFFICERND_CLIENT_SECRET` (or `OFFICERND_CLIENT_SECRET_FILE`), `OFFICERND_SCOPES`, and
    /// whatever else [`Settings::from_env`](crate::Settings::from_env) reads.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] with the name of the variable that is missing or invalid, or that
    /// contradicts another.
    #[cfg(feature = "reqwest")]
    pub fn from_env() -> Result<Self, ConfigError> {
        Settings::from_env()?.layer()
    }

    /// A layer with everything at its default: tokens go to
    /// `https://app.officernd.com` and `https://hybrid.officernd.com` only.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        Self::over_cache(TokenCache::new(provider), Policy::default())
    }

    /// A layer to be set up.
    pub fn builder(provider: impl TokenProvider) -> Builder {
        Settings::default().builder(provider)
    }

    /// A layer with a cache for each organization: the `{orgSlug}` of
    /// `/api/v1|v2/organizations/{orgSlug}/...` selects the credentials. Caches
    /// are made on demand, bounded in number, and dropped when idle.
    ///
    /// A path that could be read as another organization's (dot segments,
    /// encoded slashes, doubled slashes, another case) is refused with
    /// [`ErrorKind::Organization`](crate::ErrorKind::Organization).
    ///
    /// ```
    /// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
    /// use std::collections::HashMap;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tokens = HashMap::from([("acme".to_owned(), StaticToken::new("abc")?)]);
    /// let layer = OfficeRndAuthLayer::per_organization(tokens)
    ///     .default_organization("acme")
    ///     .build()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn per_organization(resolver: impl OrganizationResolver) -> Builder<New<Resolver>> {
        Settings::default().per_organization(resolver)
    }

    /// A layer over an existing cache, to share its token under another policy.
    ///
    /// ```
    /// use officernd_auth::{OfficeRndAuthLayer, StaticToken, TokenCache};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = TokenCache::new(StaticToken::new("abc")?);
    /// let strict = OfficeRndAuthLayer::from_cache(cache.clone()).build()?;
    /// let proxy = OfficeRndAuthLayer::from_cache(cache).pass_foreign_origins().build()?;
    /// # drop((strict, proxy));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_cache(cache: TokenCache) -> Builder<TokenCache> {
        Settings::default().over(cache)
    }
}

impl Settings {
    /// The layer that these settings describe.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming what is missing or wrong.
    ///
    /// ```
    /// use officernd_auth::Settings;
    ///
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let mut settings = Settings::default();
    /// settings.client_id = Some("client-id".to_owned());
    /// settings.client_secret = Some("client-secret".into());
    /// settings.scopes = vec!["flex.community.members.read".to_owned()];
    /// let layer = settings.layer()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "reqwest")]
    pub fn layer(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let provider = crate::HttpTokenProvider::new(self.credentials()?)?;
        self.builder(provider).build()
    }

    /// A builder with these settings over a provider of your own. The
    /// [`credentials`](Self::credentials) in the settings are not used.
    ///
    /// ```
    /// use officernd_auth::StaticToken;
    /// use officernd_auth::Settings;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = Settings::default()
    ///     .builder(StaticToken::new("abc")?)
    ///     .allow_any_https_origin()
    ///     .build()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(&self, provider: impl TokenProvider) -> Builder {
        self.over(self.new_of(Provider(Box::new(provider))))
    }

    /// A builder with these settings and a cache for each organization, as
    /// [`OfficeRndAuthLayer::per_organization`]. The
    /// [`credentials`](Self::credentials) in the settings are not used.
    pub fn per_organization(&self, resolver: impl OrganizationResolver) -> Builder<New<Resolver>> {
        self.over(self.new_of(Resolver(Box::new(resolver))))
    }

    fn new_of<T>(&self, from: T) -> New<T> {
        New {
            from,
            rate_limit: self.rate_limit(),
            clock: Arc::new(TokioClock),
        }
    }

    fn over<S>(&self, source: S) -> Builder<S> {
        let mut settings = self.clone();
        // A builder needs no credentials, and so keeps none.
        settings.client_id = None;
        settings.client_secret = None;
        Builder {
            settings,
            any_https_origin: false,
            source,
        }
    }
}

/// The source of a [`Builder`] that makes caches: one for a
/// [`Provider`], or one for each organization of a [`Resolver`].
///
/// ```
/// use officernd_auth::Builder;
/// use officernd_auth::builder::{New, Provider, Resolver};
///
/// fn one(builder: Builder<New<Provider>>) -> Builder {
///     builder.keep_warm(true)
/// }
/// fn many(builder: Builder<New<Resolver>>) -> Builder<New<Resolver>> {
///     builder.keep_warm(true).max_organizations(100)
/// }
/// # let token = officernd_auth::StaticToken::new("abc").unwrap();
/// # drop(one(officernd_auth::OfficeRndAuthLayer::builder(token)));
/// ```
#[derive(Debug)]
pub struct New<T> {
    pub(super) from: T,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The provider of a new cache. [`New`] has an example.
pub struct Provider(pub(super) Box<dyn DynProvider>);

/// The resolver that finds each organization's provider. [`New`] has an example.
pub struct Resolver(pub(super) Box<dyn Resolve>);

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}
