//! The roof: the one file that knows every floor.

mod settings;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::allowance::Allowance;
use crate::cache::{Settings, TokenCache};
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::middleware::{OfficeRndAuthLayer, Policy};
use crate::organizations::slug::Slug;
use crate::organizations::{
    Bounds, OrganizationMap, OrganizationResolver, Organizations, Resolve, Resolved,
};
use crate::provider::{DynProvider, TokenProvider};

/// The longest time that a setting may name. No token is trusted for longer.
const LONGEST: Duration = crate::token::MAX_LIFE;

/// How long OfficeRnD's tokens live.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

impl OfficeRndAuthLayer {
    /// A layer with everything at its default, and the credentials of the
    /// environment: `OFFICERND_CLIENT_ID`; `OFFICERND_CLIENT_SECRET` or
    /// `OFFICERND_CLIENT_SECRET_FILE`; `OFFICERND_SCOPE` or `OFFICERND_SCOPES`;
    /// optionally `OFFICERND_TOKEN_URL`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable that is missing, doubled or wrong.
    #[cfg(feature = "reqwest")]
    pub fn from_env() -> Result<Self, ConfigError> {
        let credentials = crate::ClientCredentials::from_env()?;
        Ok(Self::new(crate::HttpTokenProvider::new(credentials)?))
    }

    /// A layer with everything at its default: tokens go to
    /// `https://*.officernd.com` only.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        Self::over_cache(TokenCache::new(provider), Policy::default())
    }

    /// A layer to be set up.
    pub fn builder(provider: impl TokenProvider) -> Builder {
        Builder {
            provider: Box::new(provider),
            settings: Settings::default(),
            allowance: None,
            layer: LayerBuilder::default(),
        }
    }

    /// A layer with a cache for each organization: the `{orgSlug}` of
    /// `/api/v1|v2/organizations/{orgSlug}/…` picks the credentials. Caches are
    /// made on demand, bounded in number, and let go when idle.
    ///
    /// A path that could be read as another organization's (dot segments,
    /// encoded slashes, doubled slashes, another case) is refused with
    /// [`ErrorKind::Organization`](crate::ErrorKind::Organization).
    pub fn per_organization(resolver: impl OrganizationResolver) -> OrganizationsBuilder {
        OrganizationsBuilder {
            resolver: Box::new(Erased(resolver)),
            settings: Settings::default(),
            allowance: None,
            layer: LayerBuilder::default(),
            bounds: Bounds {
                most: 10_000,
                idle_after: Duration::from_secs(60 * 60),
            },
            default: None,
        }
    }

    /// A layer over a cache that exists, to share its token under another
    /// policy.
    pub fn from_cache(cache: TokenCache) -> CachedBuilder {
        let layer = LayerBuilder::default();
        CachedBuilder { cache, layer }
    }
}

/// Sets up an [`OfficeRndAuthLayer`] and its cache.
///
/// | setting | default |
/// |---|---|
/// | [`refresh_ahead`](Self::refresh_ahead) | 15 min, at most half the token's life |
/// | [`jitter`](Self::jitter) | 0.1 |
/// | [`expiry_margin`](Self::expiry_margin) | 10 s, at most a tenth of the life |
/// | [`fetch_timeout`](Self::fetch_timeout) | 10 s |
/// | [`acquire_timeout`](Self::acquire_timeout) | 30 s |
/// | [`allowance`](Self::allowance) | 5 per 60 s, shared by all caches on one token URL |
/// | [`keep_warm`](Self::keep_warm) | `false` |
/// | [`allow_origin`](Self::allow_origin) | `https://*.officernd.com` |
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
    provider: Box<dyn DynProvider>,
    settings: Settings,
    allowance: Option<Allowance>,
    layer: LayerBuilder,
}

/// Sets up an [`OfficeRndAuthLayer`] over a cache that exists already
/// ([`OfficeRndAuthLayer::from_cache`]): which requests get the token.
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
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct CachedBuilder {
    cache: TokenCache,
    layer: LayerBuilder,
}

/// The policy so far, or the first mistake in it.
#[derive(Debug, Default)]
struct LayerBuilder {
    policy: Policy,
    mistake: Option<ConfigError>,
}

impl LayerBuilder {
    fn allow_origin(&mut self, origin: &str) {
        if let Err(mistake) = self.policy.origins.allow(origin) {
            self.mistake.get_or_insert(mistake);
        }
    }

    fn policy(self) -> Result<Policy, ConfigError> {
        match self.mistake {
            Some(mistake) => Err(mistake),
            None => Ok(self.policy),
        }
    }
}

/// The settings that both builders have.
macro_rules! layer_settings {
    () => {
        /// Adds an origin that may see the token: `https://host`,
        /// `https://host:port`, `https://*.host` (any depth, not the host
        /// itself), or plain `http` to a loopback host. A mistake in it is
        /// reported by [`build`](Self::build).
        pub fn allow_origin(mut self, origin: &str) -> Self {
            self.layer.allow_origin(origin);
            self
        }

        /// Sends the token to every host that is asked over https. A redirect
        /// or a URL taken from input can then carry it anywhere.
        pub fn allow_any_https_origin(mut self) -> Self {
            self.layer.policy.origins.allow_any_https();
            self
        }

        /// Requests to origins that are not allowed go out as they are, with
        /// a caller's own `Authorization` if they have one. The default is to
        /// fail them.
        pub fn pass_foreign_origins(mut self) -> Self {
            self.layer.policy.pass_foreign = true;
            self
        }

        /// Requests that have an `Authorization` header keep it. The default
        /// is to replace it, as a gateway must. Their origin is checked all
        /// the same.
        pub fn if_not_present(mut self) -> Self {
            self.layer.policy.if_not_present = true;
            self
        }
    };
}

/// The settings of a cache, or of the caches of all organizations.
macro_rules! cache_settings {
    () => {
        /// How long before its expiry a token is refreshed in the background;
        /// never more than half its life. A 3,600 s token, 15 min ahead: from 45:00.
        pub fn refresh_ahead(mut self, ahead: Duration) -> Self {
            self.settings.policy.refresh_ahead = ahead;
            self
        }

        /// By which share (0.0 to 1.0) the time up to the refresh may be shortened
        /// at random, so that equal pods do not meet. 55:00 and 0.1: between 49:30
        /// and 55:00.
        pub fn jitter(mut self, share: f32) -> Self {
            self.settings.policy.jitter = share;
            self
        }

        /// How long before its expiry requests wait for the next token instead of
        /// using the old one; never more than a tenth of its life. A 3,600 s token
        /// and 10 s: from 59:50.
        pub fn expiry_margin(mut self, margin: Duration) -> Self {
            self.settings.policy.expiry_margin = margin;
            self
        }

        /// How long one token request may take.
        pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
            self.settings.fetch_timeout = timeout;
            self
        }

        /// How long a request may wait for a token, everything included: the
        /// allowance, other callers' fetch, the fetch.
        pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
            self.settings.acquire_timeout = timeout;
            self
        }

        /// How many token requests may be sent; a clone shares the ledger.
        pub fn allowance(mut self, allowance: Allowance) -> Self {
            self.allowance = Some(allowance);
            self
        }

        /// Whether a timer keeps the token fresh while no requests come. It starts
        /// with the cache inside a runtime, else with the first call in one.
        pub fn keep_warm(mut self, keep_warm: bool) -> Self {
            self.settings.keep_warm = keep_warm;
            self
        }

        /// Another clock, for tests.
        pub fn clock(mut self, clock: impl Clock) -> Self {
            self.settings.clock = Arc::new(clock);
            self
        }
    };
}

impl CachedBuilder {
    layer_settings!();

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Origin`] for an origin that is none.
    pub fn build(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let policy = self.layer.policy()?;
        Ok(OfficeRndAuthLayer::over_cache(self.cache, policy))
    }
}

impl Builder {
    layer_settings!();

    cache_settings!();

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Origin`] for an origin that is none,
    /// [`ConfigError::Setting`] for a number out of its range.
    pub fn build(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        check(&self.settings)?;
        let policy = self.layer.policy()?;
        let cache = TokenCache::with_settings(self.provider, self.allowance, self.settings);
        Ok(OfficeRndAuthLayer::over_cache(cache, policy))
    }
}

fn check(settings: &Settings) -> Result<(), ConfigError> {
    let setting = |name, problem: &str| {
        let problem = problem.to_owned();
        Err(ConfigError::Setting { name, problem })
    };
    let policy = &settings.policy;
    if !(0.0..=1.0).contains(&policy.jitter) {
        return setting("jitter", "is not between 0.0 and 1.0");
    }
    if policy.expiry_margin >= TOKEN_LIFE {
        return setting(
            "expiry_margin",
            "is as long as a token lives (3,600 s) or longer; at most a tenth of a \
             life is used, and the default is 10 s",
        );
    }
    if policy.refresh_ahead > LONGEST {
        return setting(
            "refresh_ahead",
            "is over 24 h, longer than any token lives; the default is 15 min",
        );
    }
    for (name, timeout) in [
        ("fetch_timeout", settings.fetch_timeout),
        ("acquire_timeout", settings.acquire_timeout),
    ] {
        if timeout.is_zero() {
            return setting(name, "is zero: no token could ever arrive");
        }
        if timeout > LONGEST {
            return setting(name, "is over 24 h: that is no bound");
        }
    }
    Ok(())
}

/// Sets up a layer with a cache for each organization
/// ([`OfficeRndAuthLayer::per_organization`]).
///
/// The settings of a cache hold for each of them; all share one
/// [`Allowance`]. Beyond those of [`Builder`]:
///
/// | setting | default |
/// |---|---|
/// | [`default_organization`](Self::default_organization) | none: a path without a slug is an error |
/// | [`max_organizations`](Self::max_organizations) | 10,000 |
/// | [`idle_after`](Self::idle_after) | 1 h |
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
#[must_use = "a builder does nothing until it is built"]
pub struct OrganizationsBuilder {
    resolver: Box<dyn Resolve>,
    settings: Settings,
    allowance: Option<Allowance>,
    layer: LayerBuilder,
    bounds: Bounds,
    default: Option<String>,
}

impl OrganizationsBuilder {
    layer_settings!();

    cache_settings!();

    /// Whose token goes on requests whose path names no organization.
    pub fn default_organization(mut self, slug: impl Into<String>) -> Self {
        self.default = Some(slug.into());
        self
    }

    /// How many organizations are kept at most; idle and unknown ones make
    /// room first.
    pub fn max_organizations(mut self, most: usize) -> Self {
        self.bounds.most = most;
        self
    }

    /// After this long without a request, up to twice as long, an
    /// organization's cache is let go.
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.bounds.idle_after = idle;
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`], and [`ConfigError::Setting`] for a default
    /// organization that is no slug or a bound of zero.
    pub fn build(self) -> Result<OfficeRndAuthLayer<Organizations>, ConfigError> {
        check(&self.settings)?;
        let policy = self.layer.policy()?;
        let setting = |name, problem: &str| ConfigError::Setting {
            name,
            problem: problem.to_owned(),
        };
        if self.bounds.most == 0 {
            return Err(setting("max_organizations", "is zero: none could be kept"));
        }
        if self.bounds.idle_after.is_zero() {
            return Err(setting("idle_after", "is zero: none could be kept"));
        }
        let default = match self.default.as_deref().map(Slug::new) {
            Some(None) => {
                let problem = "is no slug: letters, digits, '-' and '_', at most 63 of them";
                return Err(setting("default_organization", problem));
            }
            Some(Some(slug)) => Some(slug.as_str().into()),
            None => None,
        };
        let allowance = self.allowance.or_else(|| Some(Allowance::default()));
        let directory = OrganizationMap::new(self.resolver, self.settings, allowance, self.bounds);
        let organizations = Organizations::new(directory, default);
        Ok(OfficeRndAuthLayer::over_organizations(
            organizations,
            policy,
        ))
    }
}

/// The user's resolver, without its type.
struct Erased<R>(R);

impl<R: OrganizationResolver> Resolve for Erased<R> {
    fn resolve<'a>(&'a self, slug: &'a str) -> Pin<Box<dyn Future<Output = Resolved> + Send + 'a>> {
        Box::pin(async move {
            let provider = self.0.resolve(slug).await?;
            Ok(provider.map(|provider| Box::new(provider) as Box<dyn DynProvider>))
        })
    }
}

impl fmt::Debug for OrganizationsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrganizationsBuilder")
            .field("settings", &self.settings)
            .field("allowance", &self.allowance)
            .field("policy", &self.layer.policy)
            .field("bounds", &self.bounds)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("settings", &self.settings)
            .field("allowance", &self.allowance)
            .field("policy", &self.layer.policy)
            .finish_non_exhaustive()
    }
}
