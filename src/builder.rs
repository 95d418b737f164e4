//! Sets up a layer: [`Builder`], and the constructors of [`OfficeRndAuthLayer`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{self, TokenCache};
use crate::clock::{Clock, TokioClock};
use crate::error::ConfigError;
use crate::layer::OfficeRndAuthLayer;
use crate::origin::Policy;
use crate::provider::{DynProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::settings::Settings;

/// Builds an [`OfficeRndAuthLayer`], with a new cache ([`OfficeRndAuthLayer::builder`]) or over an
/// existing one ([`OfficeRndAuthLayer::from_cache`]).
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = OfficeRndAuthLayer::builder(StaticToken::new("abc")?)
///     .allow_origin("https://officernd-gateway.example.com")
///     .refresh_ahead(Duration::from_secs(10 * 60))
///     .build()?;
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    settings: Settings,
    any_https_origin: bool,
    rate_limit: Option<RateLimit>,
    clock: Arc<dyn Clock>,
    source: Source,
    /// The name of a cache setting that was set.
    cache_setting: Option<&'static str>,
}

enum Source {
    Provider(Box<dyn DynProvider>),
    Cache(TokenCache),
}

impl Builder {
    /// Adds an origin that may receive the token: `https://host`, `https://host:port`,
    /// `https://*.domain`, or plain `http` to a loopback host. [`build`](Self::build) reports an invalid
    /// origin.
    ///
    /// `https://app.officernd.com` and `https://hybrid.officernd.com` are always allowed. Other API hosts
    /// have to be added: `https://staging.officernd.com`, and the regional host of an organization, which
    /// `GET /api/v1/organizations/{slug}` returns in `regionInfo.regionUrl`.
    ///
    /// `https://*.domain` matches every host below the domain at any depth, but not the domain itself.
    /// Avoid `https://*.officernd.com`: it includes the member portal of every customer
    /// (`https://<customer>.officernd.com`), and help and marketing sites that other companies run.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.settings.allow_origins.push(origin.to_owned());
        self
    }

    /// Sends the token to every https host. A redirect or a URL from user input can then send it to any
    /// server.
    pub fn allow_any_https_origin(mut self) -> Self {
        self.any_https_origin = true;
        self
    }

    /// Sends requests to other origins unchanged, without the token, instead of failing them.
    pub fn pass_foreign_origins(mut self) -> Self {
        self.settings.pass_foreign_origins = true;
        self
    }

    /// Keeps the `Authorization` header of requests that have one, instead of replacing it. Their
    /// origin is checked in either case.
    pub fn if_not_present(mut self) -> Self {
        self.settings.if_not_present = true;
        self
    }

    /// Sets how long before its expiry a token is refreshed in the background, at most half its
    /// lifetime. Default: 15 min, which is minute 45 of a one-hour token.
    pub fn refresh_ahead(mut self, ahead: Duration) -> Self {
        self.cache_setting = Some("refresh_ahead");
        self.settings.refresh_ahead = ahead;
        self
    }

    /// Sets the share (0.0 to 1.0) of the time until the refresh that may be cut at random, so that pods
    /// do not refresh together. Default: 0.1, which is minute 40.5 to 45 of a one-hour token.
    pub fn jitter(mut self, share: f32) -> Self {
        self.cache_setting = Some("jitter");
        self.settings.jitter = share;
        self
    }

    /// Sets how long before its expiry a token is no longer used, at most a tenth of its lifetime.
    /// Requests then wait for the next one. Default: 10 s.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.cache_setting = Some("expiry_margin");
        self.settings.expiry_margin = margin;
        self
    }

    /// Sets how long one token request may take. Default: 10 s.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.cache_setting = Some("fetch_timeout");
        self.settings.fetch_timeout = timeout;
        self
    }

    /// Sets how long a request may wait for a token in total: for the rate limit, another caller's
    /// fetch, and its own. Default: 30 s.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.cache_setting = Some("acquire_timeout");
        self.settings.acquire_timeout = timeout;
        self
    }

    /// Sets how many token requests may be sent. A clone shares the window. Default: the provider's
    /// rate limit, 5 per 60 s for all caches on one token URL.
    pub fn rate_limit(mut self, rate_limit: RateLimit) -> Self {
        self.cache_setting = Some("rate_limit");
        self.rate_limit = Some(rate_limit);
        self
    }

    /// Sets whether a timer refreshes the token while there are no requests. The timer starts when the
    /// cache is created, or at its first call if that was outside a tokio runtime. It ends when the last
    /// handle of the cache is dropped. Default: `false`.
    pub fn keep_warm(mut self, keep_warm: bool) -> Self {
        self.cache_setting = Some("keep_warm");
        self.settings.keep_warm = keep_warm;
        self
    }

    /// Sets the clock. For tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.cache_setting = Some("clock");
        self.clock = Arc::new(clock);
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] for an invalid origin, a number out of its range, or a cache
    /// setting over an existing cache.
    pub fn build(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        self.settings.check()?;
        let mut policy = self.settings.policy()?;
        policy.any_https = self.any_https_origin;
        let cache = match (self.source, self.cache_setting) {
            (Source::Cache(cache), None) => cache,
            (Source::Cache(_), Some(name)) => {
                let problem = "belongs to the cache; set it where the cache is created";
                return Err(ConfigError::setting(name, problem));
            }
            (Source::Provider(provider), _) => {
                let settings = cache::CacheSettings::from(&self.settings);
                TokenCache::with_settings(provider, self.rate_limit, settings, self.clock)
            }
        };
        Ok(OfficeRndAuthLayer::over_cache(cache, policy))
    }
}

impl OfficeRndAuthLayer {
    /// Builds a layer from environment variables, like [`Settings::from_env`]:
    /// `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET`, `OFFICERND_SCOPES` and others.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] with the name of the variable that is missing or invalid, or that
    /// contradicts another.
    #[cfg(feature = "reqwest")]
    pub fn from_env() -> Result<Self, ConfigError> {
        Settings::from_env()?.layer()
    }

    /// Creates a layer with default settings: the token goes to `https://app.officernd.com` and
    /// `https://hybrid.officernd.com` only.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        Self::over_cache(TokenCache::new(provider), Policy::default())
    }

    /// Returns a builder for a layer over this provider.
    pub fn builder(provider: impl TokenProvider) -> Builder {
        Settings::default().builder(provider)
    }

    /// Returns a builder for a second layer over an existing cache. If a cache setting is set,
    /// [`build`](Builder::build) fails.
    pub fn from_cache(cache: TokenCache) -> Builder {
        Settings::default().over(Source::Cache(cache), None)
    }
}

impl Settings {
    /// Builds a layer with these settings.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] with the name of the setting that is missing or invalid.
    #[cfg(feature = "reqwest")]
    pub fn layer(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let provider = crate::HttpTokenProvider::new(self.credentials()?)?;
        self.builder(provider).build()
    }

    /// Returns a builder with these settings over your own provider. The
    /// [`credentials`](Self::credentials) in the settings are not used.
    pub fn builder(&self, provider: impl TokenProvider) -> Builder {
        let rate_limit = self.rate_limit().or_else(|| provider.rate_limit());
        self.over(Source::Provider(Box::new(provider)), rate_limit)
    }

    fn over(&self, source: Source, rate_limit: Option<RateLimit>) -> Builder {
        let mut settings = self.clone();
        // The provider has the credentials; a second copy is not needed.
        settings.client_id = None;
        settings.client_secret = None;
        Builder {
            rate_limit,
            settings,
            any_https_origin: false,
            clock: Arc::new(TokioClock),
            source,
            cache_setting: None,
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("settings", &self.settings)
            .field("any_https_origin", &self.any_https_origin)
            .field("rate_limit", &self.rate_limit)
            .finish_non_exhaustive()
    }
}
