//! Sets up a layer: [`Builder`].
//!
//! The composition root: the only module that depends on all others.

mod constructors;

use std::sync::Arc;
use std::time::Duration;

pub use self::constructors::{New, Provider, Resolver};
use crate::cache::{self, TokenCache};
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::middleware::{OfficeRndAuthLayer, Policy};
use crate::organizations::slug::Slug;
use crate::organizations::{OrganizationMap, Organizations};
use crate::rate_limit::RateLimit;
use crate::settings::Settings;

/// Sets up an [`OfficeRndAuthLayer`] over [`Settings`].
///
/// `S` is what the layer gets its tokens from: a new cache
/// ([`OfficeRndAuthLayer::builder`]), an existing [`TokenCache`]
/// ([`from_cache`](OfficeRndAuthLayer::from_cache)), or a new cache for each
/// organization ([`per_organization`](OfficeRndAuthLayer::per_organization)).
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
pub struct Builder<S = New<Provider>> {
    settings: Settings,
    any_https_origin: bool,
    source: S,
}

impl<S> Builder<S> {
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

    fn policy(&self) -> Result<Policy, ConfigError> {
        self.settings.check()?;
        let mut origins = self.settings.origins()?;
        if self.any_https_origin {
            origins.allow_any_https();
        }
        Ok(Policy {
            origins,
            pass_foreign: self.settings.pass_foreign_origins,
            if_not_present: self.settings.if_not_present,
        })
    }
}

/// The settings of a cache, or of the caches of all organizations.
impl<T> Builder<New<T>> {
    /// How long before its expiry a token is refreshed in the background; never
    /// more than half its life. A 3,600 s token, 15 min ahead: from 45:00.
    pub fn refresh_ahead(mut self, ahead: Duration) -> Self {
        self.settings.refresh_ahead = ahead;
        self
    }

    /// By which share (0.0 to 1.0) the time up to the refresh may be shortened
    /// at random, so that equal pods do not refresh at one moment. 45:00 and
    /// 0.1: between 40:30 and 45:00.
    pub fn jitter(mut self, share: f32) -> Self {
        self.settings.jitter = share;
        self
    }

    /// How long before its expiry requests wait for the next token instead of
    /// using the old one; never more than a tenth of its life. A 3,600 s token
    /// and 10 s: from 59:50.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.settings.expiry_margin = margin;
        self
    }

    /// How long one token request may take.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.settings.fetch_timeout = timeout;
        self
    }

    /// How long a request may wait for a token, everything included: the
    /// organization's resolver, the rate limit, another caller's fetch, the fetch.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.settings.acquire_timeout = timeout;
        self
    }

    /// How many token requests may be sent, instead of what the provider says.
    /// A clone shares the window.
    pub fn rate_limit(mut self, rate_limit: RateLimit) -> Self {
        self.source.rate_limit = Some(rate_limit);
        self
    }

    /// Whether a timer keeps the token fresh while no requests come. It starts
    /// with the cache inside a runtime, else with the first call in one. The
    /// timer of an organization without a request in one whole life of its
    /// token ends; the next request starts it again.
    pub fn keep_warm(mut self, keep_warm: bool) -> Self {
        self.settings.keep_warm = keep_warm;
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.source.clock = Arc::new(clock);
        self
    }

    fn cache_settings(&self) -> cache::Settings {
        cache::Settings::new(&self.settings, Arc::clone(&self.source.clock))
    }
}

/// The settings of several organizations.
///
/// | setting | default |
/// |---|---|
/// | [`default_organization`](Self::default_organization) | none: a path without a slug is an error |
/// | [`max_organizations`](Self::max_organizations) | 10,000 |
/// | [`idle_after`](Self::idle_after) | 1 h |
impl Builder<New<Resolver>> {
    /// The organization whose token goes on requests whose path names none.
    pub fn default_organization(mut self, slug: impl Into<String>) -> Self {
        self.settings.default_organization = Some(slug.into());
        self
    }

    /// How many organizations are kept at most; idle and unknown ones make room
    /// first.
    pub fn max_organizations(mut self, max: usize) -> Self {
        self.settings.max_organizations = max;
        self
    }

    /// How long an organization is kept without a request, at least. It is
    /// dropped, with its token, at the first token request or new organization
    /// after that, mostly before twice that time.
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.settings.idle_after = idle;
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] for an invalid origin, a number out of its range or a default
    /// organization that is not a slug.
    pub fn build(self) -> Result<OfficeRndAuthLayer<Organizations>, ConfigError> {
        let policy = self.policy()?;
        let default = match self.settings.default_organization.as_deref() {
            Some(slug) => Some(Slug::new(slug).ok_or_else(|| {
                default_organization(
                    "is not a slug: letters, digits, '-' and '_', at most 63 of them",
                )
            })?),
            None => None,
        };
        let cache_settings = self.cache_settings();
        let New {
            from, rate_limit, ..
        } = self.source;
        let map = OrganizationMap::new(from.0, cache_settings, rate_limit, &self.settings);
        let organizations = Organizations::new(map, default.map(|slug| slug.as_str().into()));
        Ok(OfficeRndAuthLayer::over_organizations(
            organizations,
            policy,
        ))
    }
}

impl Builder {
    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] for an invalid origin, a number out of its range, or a default
    /// organization where there is one cache for all requests.
    pub fn build(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let policy = self.policy()?;
        if self.settings.default_organization.is_some() {
            return Err(default_organization(
                "is for several organizations: use per_organization",
            ));
        }
        let settings = self.cache_settings();
        let New {
            from, rate_limit, ..
        } = self.source;
        let cache = TokenCache::with_settings(from.0, rate_limit, settings);
        Ok(OfficeRndAuthLayer::over_cache(cache, policy))
    }
}

impl Builder<TokenCache> {
    /// The layer.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] if an allowed origin is invalid.
    pub fn build(self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let policy = self.policy()?;
        Ok(OfficeRndAuthLayer::over_cache(self.source, policy))
    }
}

fn default_organization(problem: &str) -> ConfigError {
    ConfigError::setting("default_organization", problem)
}
