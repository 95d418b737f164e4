//! Sets up a layer: [`Builder`], and the constructors of [`OfficeRndAuthLayer`].
//!
//! The composition root: the only module that depends on all others.

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

/// Sets up an [`OfficeRndAuthLayer`] over [`Settings`].
///
/// The layer gets a new cache ([`OfficeRndAuthLayer::builder`]), or an existing one
/// ([`from_cache`](OfficeRndAuthLayer::from_cache)), which has its settings already.
///
/// | setting | default |
/// |---|---|
/// | [`refresh_ahead`](Self::refresh_ahead) | 15 min, at most half the token's life |
/// | [`jitter`](Self::jitter) | 0.1 |
/// | [`expiry_margin`](Self::expiry_margin) | 10 s, at most a tenth of the life |
/// | [`fetch_timeout`](Self::fetch_timeout) | 10 s |
/// | [`acquire_timeout`](Self::acquire_timeout) | 30 s |
/// | [`rate_limit`](Self::rate_limit) | 5 per 60 s, shared by all caches on one token URL |
/// | [`keep_warm`](Self::keep_warm) | `false` |
/// | [`allow_origin`](Self::allow_origin) | `https://app.officernd.com`, `https://hybrid.officernd.com` |
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
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    settings: Settings,
    any_https_origin: bool,
    rate_limit: Option<RateLimit>,
    clock: Arc<dyn Clock>,
    source: Source,
    /// A setting of the cache that was called.
    cache_setting: Option<&'static str>,
}

/// What the layer gets its tokens from.
enum Source {
    Provider(Box<dyn DynProvider>),
    Cache(TokenCache),
}

impl Builder {
    /// Adds an origin that may receive the token: `https://host`,
    /// `https://host:port`, `https://*.domain`, or plain `http` to a loopback
    /// host. [`build`](Self::build) reports an invalid origin.
    ///
    /// `https://app.officernd.com` and `https://hybrid.officernd.com` are always
    /// allowed. Other API hosts have to be added: `https://staging.officernd.com`,
    /// and the regional host of an organization, which
    /// `GET /api/v1/organizations/{slug}` returns in `regionInfo.regionUrl`.
    ///
    /// `https://*.domain` matches every host below the domain at any depth, but
    /// not the domain itself. Avoid `https://*.officernd.com`: it includes the
    /// member portal of every customer (`https://<customer>.officernd.com`), and
    /// help and marketing sites that other companies run. A URL from user input,
    /// or a redirect, could then send the token to one of them.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.settings.allow_origins.push(origin.to_owned());
        self
    }

    /// Sends the token to every host that is asked over https. A redirect or a
    /// URL taken from input can then carry it anywhere.
    pub fn allow_any_https_origin(mut self) -> Self {
        self.any_https_origin = true;
        self
    }

    /// Sends requests to origins that are not allowed as they are, with a
    /// caller's own `Authorization` if they have one. The default is to fail
    /// them.
    pub fn pass_foreign_origins(mut self) -> Self {
        self.settings.pass_foreign_origins = true;
        self
    }

    /// Keeps the `Authorization` header of requests that have one. The default
    /// is to replace it, as a gateway must. Their origin is checked all the
    /// same.
    pub fn if_not_present(mut self) -> Self {
        self.settings.if_not_present = true;
        self
    }

    /// How long before its expiry a token is refreshed in the background; never
    /// more than half its life. A 3,600 s token, 15 min ahead: from 45:00.
    pub fn refresh_ahead(mut self, ahead: Duration) -> Self {
        self.cache_setting = Some("refresh_ahead");
        self.settings.refresh_ahead = ahead;
        self
    }

    /// By which share (0.0 to 1.0) the time up to the refresh may be shortened
    /// at random, so that equal pods do not refresh at one moment. 45:00 and
    /// 0.1: between 40:30 and 45:00.
    pub fn jitter(mut self, share: f32) -> Self {
        self.cache_setting = Some("jitter");
        self.settings.jitter = share;
        self
    }

    /// How long before its expiry requests wait for the next token instead of
    /// using the old one; never more than a tenth of its life. A 3,600 s token
    /// and 10 s: from 59:50.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.cache_setting = Some("expiry_margin");
        self.settings.expiry_margin = margin;
        self
    }

    /// How long one token request may take.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.cache_setting = Some("fetch_timeout");
        self.settings.fetch_timeout = timeout;
        self
    }

    /// How long a request may wait for a token, everything included: the rate
    /// limit, another caller's fetch, the fetch.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.cache_setting = Some("acquire_timeout");
        self.settings.acquire_timeout = timeout;
        self
    }

    /// How many token requests may be sent, instead of what the provider says.
    /// A clone shares the window.
    pub fn rate_limit(mut self, rate_limit: RateLimit) -> Self {
        self.cache_setting = Some("rate_limit");
        self.rate_limit = Some(rate_limit);
        self
    }

    /// Whether a timer keeps the token fresh while no requests come. It starts
    /// with the cache inside a runtime, else with the first call in one, and ends
    /// with the last handle of the cache.
    pub fn keep_warm(mut self, keep_warm: bool) -> Self {
        self.cache_setting = Some("keep_warm");
        self.settings.keep_warm = keep_warm;
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.cache_setting = Some("clock");
        self.clock = Arc::new(clock);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] for an invalid origin, a number out of its range, or a setting of
    /// the cache over an existing one.
    pub fn build(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let policy = self.policy()?;
        let cache = match (self.source, self.cache_setting) {
            (Source::Cache(cache), None) => cache,
            (Source::Cache(_), Some(name)) => {
                let problem = "belongs to the cache: set it where the cache is made";
                return Err(ConfigError::setting(name, problem));
            }
            (Source::Provider(provider), _) => {
                let settings = cache::Settings::from(&self.settings);
                TokenCache::with_settings(provider, self.rate_limit, settings, self.clock)
            }
        };
        Ok(OfficeRndAuthLayer::over_cache(cache, policy))
    }

    fn policy(&self) -> Result<Policy, ConfigError> {
        self.settings.check()?;
        let mut policy = self.settings.policy()?;
        policy.any_https = self.any_https_origin;
        Ok(policy)
    }
}

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

    /// A layer over an existing cache, to share its token under another policy.
    /// A setting of the cache there is an error of [`build`](Builder::build).
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
    pub fn from_cache(cache: TokenCache) -> Builder {
        Settings::default().over(Source::Cache(cache))
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
        self.over(Source::Provider(Box::new(provider)))
    }

    fn over(&self, source: Source) -> Builder {
        let mut settings = self.clone();
        // A builder needs no credentials, and so keeps none.
        settings.client_id = None;
        settings.client_secret = None;
        Builder {
            rate_limit: settings.rate_limit(),
            settings,
            any_https_origin: false,
            clock: Arc::new(TokioClock),
            source,
            cache_setting: None,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(_) => f.write_str("Provider"),
            Self::Cache(cache) => cache.fmt(f),
        }
    }
}
