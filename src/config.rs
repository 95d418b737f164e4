//! Settings from a configuration file or from the environment, through serde.
//!
//! Any serde format can hold [`Settings`]. Here figment reads a TOML file and lets
//! environment variables override it:
//!
//! ```
//! use figment::Figment;
//! use figment::providers::{Env, Format, Toml};
//! use officernd_auth::config::Settings;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings: Settings = Figment::new()
//!     .merge(Toml::string(
//!         r#"
//!             client_id = "Kf3xQ9vTz1LmB7cR"
//!             client_secret_file = "/run/secrets/officernd"
//!             scopes = ["flex.community.members.read", "flex.space.locations.read"]
//!             refresh_ahead = "10m"
//!
//!             [rate_limit]
//!             requests = 3
//!             per = "1m"
//!         "#,
//!     ))
//!     // OFFICERND_REFRESH_AHEAD=5m, OFFICERND_RATE_LIMIT__REQUESTS=2, ...
//!     .merge(Env::prefixed("OFFICERND_").split("__").ignore(&["org_slug"]))
//!     .extract()?;
//! assert_eq!(settings.refresh_ahead.as_secs(), 600);
//! # Ok(())
//! # }
//! ```
//!
//! The same in the environment alone:
//!
//! ```sh
//! OFFICERND_CLIENT_ID=Kf3xQ9vTz1LmB7cR
//! OFFICERND_CLIENT_SECRET_FILE=/run/secrets/officernd
//! OFFICERND_SCOPES="flex.community.members.read flex.space.locations.read"
//! OFFICERND_REFRESH_AHEAD=10m
//! OFFICERND_RATE_LIMIT__REQUESTS=3
//! OFFICERND_RATE_LIMIT__PER=1m
//! ```
//!
//! figment takes a variable that is all digits for a number: write
//! `OFFICERND_CLIENT_SECRET='"12345678"'`, or use the file.

mod check;
mod rate_limit;
mod read;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use self::rate_limit::RateLimitSettings;
use crate::credentials::{ClientCredentials, SCOPE_EXAMPLES};
use crate::error::ConfigError;
use crate::secret::Secret;

/// All settings of a layer, as a plain value.
///
/// A name that it does not know is refused, so that a misspelt setting is found
/// at start-up. Durations are text: `"250ms"`, `"10s"`, `"5m"`, `"1h 30m"`.
/// `Debug` shows no secret.
///
/// | setting | default |
/// |---|---|
/// | `client_id`, `client_id_file` | none; one of them is needed |
/// | `client_secret`, `client_secret_file` | none; one of them is needed |
/// | `scopes` (or `scope`) | none; needed: a list, or text separated by spaces or commas |
/// | `token_url` | `https://identity.officernd.com/oauth/token` |
/// | `allow_origins` | none besides `https://app.officernd.com` and `https://hybrid.officernd.com`, which are always allowed |
/// | `pass_foreign_origins` | `false` |
/// | `if_not_present` | `false` |
/// | `refresh_ahead` | `"15m"`, at most half the token's life |
/// | `jitter` | `0.1` |
/// | `expiry_margin` | `"10s"`, at most a tenth of the life |
/// | `fetch_timeout` | `"10s"` |
/// | `acquire_timeout` | `"30s"` |
/// | `rate_limit.requests`, `rate_limit.per` | 5 in `"60s"`, shared by all caches on one token URL |
/// | `keep_warm` | `false` |
/// | `default_organization` | none: a path without a slug is an error |
/// | `max_organizations` | 10,000 |
/// | `idle_after` | `"1h"` |
///
/// The last three are for several organizations
/// ([`per_organization`](Self::per_organization)).
///
/// ```
/// use officernd_auth::config::Settings;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings: Settings = serde_json::from_str(
///     r#"{
///         "client_id": "client-id",
///         "client_secret": "hunter2",
///         "scopes": "flex.community.members.read",
///         "fetch_timeout": "2s"
///     }"#,
/// )?;
/// assert!(!format!("{settings:?}").contains("hunter2"));
/// # #[cfg(feature = "reqwest")]
/// let layer = settings.layer()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The app's client id. Needed, unless there is a file of it.
    pub client_id: Option<String>,
    /// The file that holds the client id; read again at each fetch, together
    /// with the secret's.
    pub client_id_file: Option<PathBuf>,
    /// The app's client secret. Needed, unless there is a file of it.
    pub client_secret: Option<Secret>,
    /// The file that holds the client secret; read again at each fetch.
    pub client_secret_file: Option<PathBuf>,
    /// The scopes to ask for; at least one. As text: separated by spaces or
    /// commas.
    pub scopes: Vec<String>,
    /// The other name of `scopes`, while settings are read.
    scope: Vec<String>,
    /// The token endpoint. `None` is OfficeRnD's.
    pub token_url: Option<String>,
    /// Origins that may receive the token, besides `https://app.officernd.com`
    /// and `https://hybrid.officernd.com`. Default: none. For the forms and the
    /// hosts to list see [`Builder::allow_origin`](crate::Builder::allow_origin).
    pub allow_origins: Vec<String>,
    /// Whether requests to other origins go out without a token instead of
    /// failing. Default: `false`.
    pub pass_foreign_origins: bool,
    /// Whether a request keeps the `Authorization` that it has. Default:
    /// `false`, it is replaced.
    pub if_not_present: bool,
    /// How long before its expiry a token is refreshed in the background.
    /// Default: 15 min, at most half the life.
    pub refresh_ahead: Duration,
    /// By which share (0.0 to 1.0) the time up to the refresh may be shortened
    /// at random. Default: 0.1.
    pub jitter: f32,
    /// How long before its expiry requests wait for the next token. Default:
    /// 10 s, at most a tenth of the life.
    pub expiry_margin: Duration,
    /// How long one token request may take. Default: 10 s.
    pub fetch_timeout: Duration,
    /// How long a request may wait for a token in all. Default: 30 s.
    pub acquire_timeout: Duration,
    /// How many token requests may be sent. `None` is 5 in 60 s, shared by all
    /// caches on one token URL in the process.
    pub rate_limit: Option<RateLimitSettings>,
    /// Whether a timer keeps the token fresh while no requests come. Default:
    /// `false`.
    pub keep_warm: bool,
    /// The organization of requests whose path names none. Default: none.
    pub default_organization: Option<String>,
    /// How many organizations are kept at most. Default: 10,000.
    pub max_organizations: usize,
    /// How long an organization without a request is kept, at least. Default: 1 h.
    pub idle_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: None,
            client_id_file: None,
            client_secret: None,
            client_secret_file: None,
            scopes: Vec::new(),
            scope: Vec::new(),
            token_url: None,
            allow_origins: Vec::new(),
            pass_foreign_origins: false,
            if_not_present: false,
            refresh_ahead: Duration::from_secs(15 * 60),
            jitter: 0.1,
            expiry_margin: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(30),
            rate_limit: None,
            keep_warm: false,
            default_organization: None,
            max_organizations: 10_000,
            idle_after: Duration::from_secs(60 * 60),
        }
    }
}

impl Settings {
    /// Checks that numbers and durations are in their ranges.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check::check(self)
    }

    /// The credentials in these settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming what is missing, or given twice. A value that
    /// cannot be used is reported when a provider is made of it.
    ///
    /// ```
    /// use officernd_auth::config::Settings;
    ///
    /// let error = Settings::default().credentials().unwrap_err();
    /// assert_eq!(error.to_string(), "client_id (or client_id_file) is not set");
    /// ```
    pub fn credentials(&self) -> Result<ClientCredentials, ConfigError> {
        let lacks = |field| ConfigError::Credential {
            field,
            problem: "is not set",
        };
        let both = |field, problem| Err(ConfigError::Credential { field, problem });
        if self.client_id.is_some() && self.client_id_file.is_some() {
            return both("client_id", "and client_id_file are both set; keep one");
        }
        if self.client_secret.is_some() && self.client_secret_file.is_some() {
            return both(
                "client_secret",
                "and client_secret_file are both set; keep one",
            );
        }
        let id = match (&self.client_id, &self.client_id_file) {
            (None, None) => return Err(lacks("client_id (or client_id_file)")),
            (id, _) => id.clone().unwrap_or_default(),
        };
        let secret = match (&self.client_secret, &self.client_secret_file) {
            (None, None) => return Err(lacks("client_secret (or client_secret_file)")),
            (secret, _) => secret.clone().unwrap_or_else(|| "".into()),
        };
        let mut credentials = ClientCredentials::new(id, secret);
        if let Some(file) = &self.client_id_file {
            credentials = credentials.id_from_file(file);
        }
        if let Some(file) = &self.client_secret_file {
            credentials = credentials.secret_from_file(file);
        }
        if self.scopes.is_empty() {
            return Err(ConfigError::Scope {
                problem: format!("is not set; OfficeRnD needs at least one, {SCOPE_EXAMPLES}"),
            });
        }
        let credentials = credentials.scopes(&self.scopes);
        Ok(match &self.token_url {
            Some(url) => credentials.token_url(url),
            None => credentials,
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password by mistake; the mistake is reported later.
        let shown = |url: &String| match url.contains('@') {
            true => "[redacted]".to_owned(),
            false => url.clone(),
        };
        let origins: Vec<String> = self.allow_origins.iter().map(shown).collect();
        f.debug_struct("Settings")
            .field("client_id", &self.client_id)
            .field("client_id_file", &self.client_id_file)
            .field("client_secret", &self.client_secret)
            .field("client_secret_file", &self.client_secret_file)
            .field("scopes", &self.scopes)
            .field("token_url", &self.token_url.as_ref().map(shown))
            .field("allow_origins", &origins)
            .field("pass_foreign_origins", &self.pass_foreign_origins)
            .field("if_not_present", &self.if_not_present)
            .field("refresh_ahead", &self.refresh_ahead)
            .field("jitter", &self.jitter)
            .field("expiry_margin", &self.expiry_margin)
            .field("fetch_timeout", &self.fetch_timeout)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("rate_limit", &self.rate_limit)
            .field("keep_warm", &self.keep_warm)
            .field("default_organization", &self.default_organization)
            .field("max_organizations", &self.max_organizations)
            .field("idle_after", &self.idle_after)
            .finish()
    }
}
