//! All settings of a layer, from the environment or a file.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{Deserializer, Error};
use serde_json::Value;

#[cfg(doc)]
use crate::builder::Builder;
use crate::credentials::{ClientCredentials, Part, SCOPE_EXAMPLES, Source};
use crate::error::ConfigError;
use crate::observability;
use crate::origin::Policy;
use crate::rate_limit::{OFFICERND, RateLimit};
use crate::secret::Secret;
use crate::syntax;
use crate::token::MAX_LIFE;

const PREFIX: &str = "OFFICERND_";

/// The variables that [`Settings::from_env`] reads.
const VARIABLES: [&str; 18] = [
    "OFFICERND_CLIENT_ID",
    "OFFICERND_CLIENT_ID_FILE",
    "OFFICERND_CLIENT_SECRET",
    "OFFICERND_CLIENT_SECRET_FILE",
    SCOPES,
    SCOPE,
    "OFFICERND_TOKEN_URL",
    "OFFICERND_ALLOW_ORIGINS",
    "OFFICERND_PASS_FOREIGN_ORIGINS",
    "OFFICERND_IF_NOT_PRESENT",
    "OFFICERND_REFRESH_AHEAD",
    "OFFICERND_JITTER",
    "OFFICERND_EXPIRY_MARGIN",
    "OFFICERND_FETCH_TIMEOUT",
    "OFFICERND_ACQUIRE_TIMEOUT",
    "OFFICERND_RATE_LIMIT_REQUESTS",
    "OFFICERND_RATE_LIMIT_PER",
    "OFFICERND_KEEP_WARM",
];
const SCOPES: &str = "OFFICERND_SCOPES";
const SCOPE: &str = "OFFICERND_SCOPE";

/// Variables of related programs, which are not reported as unknown.
const OTHERS: [&str; 2] = ["OFFICERND_ORG_SLUG", "OFFICERND_API_URL"];

/// Lifetime of OfficeRnD's tokens.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// All settings of a layer.
///
/// [`from_env`](Self::from_env) reads them from the environment, and serde from a file, in which an
/// unknown name is an error. Durations are strings with a unit: `"250ms"`, `"10s"`, `"1h 30m"`.
/// Numbers and booleans may be strings, too. `Debug` does not show the secret.
///
/// ```
/// use officernd_auth::Settings;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings: Settings = serde_json::from_str(
///     r#"{
///         "client_id": "client-id",
///         "client_secret": "hunter2",
///         "scopes": ["flex.community.members.read"],
///         "fetch_timeout": "2s"
///     }"#,
/// )?;
/// assert_eq!(settings.fetch_timeout.as_secs(), 2);
/// assert!(!format!("{settings:?}").contains("hunter2"));
/// # #[cfg(feature = "rustls")]
/// let layer = settings.layer()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The app's client id. Required, unless `client_id_file` is set.
    #[serde(deserialize_with = "text")]
    pub client_id: Option<String>,
    /// The file that contains the client id. See [`ClientCredentials::id_from_file`].
    #[serde(deserialize_with = "text")]
    pub client_id_file: Option<PathBuf>,
    /// The app's client secret. Required, unless `client_secret_file` is set.
    #[serde(deserialize_with = "text")]
    pub client_secret: Option<Secret>,
    /// The file that contains the client secret. See [`ClientCredentials::secret_from_file`].
    #[serde(deserialize_with = "text")]
    pub client_secret_file: Option<PathBuf>,
    /// The scopes to request, at least one: a list, or a string separated by spaces or commas.
    #[serde(alias = "scope", deserialize_with = "list")]
    pub scopes: Vec<String>,
    /// The token endpoint. See [`ClientCredentials::token_url`].
    #[serde(deserialize_with = "text")]
    pub token_url: Option<String>,
    /// Further origins that may receive the token: a list, or a string separated by spaces or commas.
    /// Default: none. See [`Builder::allow_origin`].
    #[serde(deserialize_with = "list")]
    pub allow_origins: Vec<String>,
    /// Whether requests to other origins are sent without the token, instead of failing. Default: `false`.
    /// See [`Builder::pass_foreign_origins`].
    #[serde(deserialize_with = "value")]
    pub pass_foreign_origins: bool,
    /// Whether an `Authorization` header that the caller set is kept. Default: `false`.
    /// See [`Builder::if_not_present`].
    #[serde(deserialize_with = "value")]
    pub if_not_present: bool,
    /// How long before its expiry a token is refreshed. Default: 15 min.
    /// See [`Builder::refresh_ahead`].
    #[serde(deserialize_with = "duration")]
    pub refresh_ahead: Duration,
    /// The share of the time until the refresh that may be cut at random. Default: 0.1.
    /// See [`Builder::jitter`].
    #[serde(deserialize_with = "value")]
    pub jitter: f32,
    /// How long before its expiry a token is no longer used. Default: 10 s.
    /// See [`Builder::expiry_margin`].
    #[serde(deserialize_with = "duration")]
    pub expiry_margin: Duration,
    /// The time limit of a token request. Default: 10 s.
    /// See [`Builder::fetch_timeout`].
    #[serde(deserialize_with = "duration")]
    pub fetch_timeout: Duration,
    /// The time limit of a request that waits for a token. Default: 30 s.
    /// See [`Builder::acquire_timeout`].
    #[serde(deserialize_with = "duration")]
    pub acquire_timeout: Duration,
    /// The number of token requests in `rate_limit_per`. Default: 5. If neither of the two is set, all
    /// caches of the process on one token URL share one window.
    #[serde(deserialize_with = "optional")]
    pub rate_limit_requests: Option<u32>,
    /// The length of the rate limit's window. Default: 60 s.
    #[serde(deserialize_with = "duration")]
    pub rate_limit_per: Option<Duration>,
    /// Whether a timer refreshes the token while there are no requests. Default: `false`.
    /// See [`Builder::keep_warm`].
    #[serde(deserialize_with = "value")]
    pub keep_warm: bool,
    /// Whether errors have the name of the variable instead of the field.
    #[serde(skip)]
    from_env: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: None,
            client_id_file: None,
            client_secret: None,
            client_secret_file: None,
            scopes: Vec::new(),
            token_url: None,
            allow_origins: Vec::new(),
            pass_foreign_origins: false,
            if_not_present: false,
            refresh_ahead: Duration::from_secs(15 * 60),
            jitter: 0.1,
            expiry_margin: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(30),
            rate_limit_requests: None,
            rate_limit_per: None,
            keep_warm: false,
            from_env: false,
        }
    }
}

impl Settings {
    /// Reads environment variables: `OFFICERND_CLIENT_ID` sets `client_id`, and so on for each setting.
    ///
    /// Values are strings: quotes are part of a secret. `OFFICERND_SCOPE` is an alias of
    /// `OFFICERND_SCOPES`. An unknown `OFFICERND_*` name is a WARN event. Missing credentials are
    /// reported by [`credentials`](Self::credentials) and [`layer`](Self::layer).
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] with the name of the variable that is empty, not UTF-8 or
    /// invalid, or that contradicts another.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut found = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let Some(&name) = VARIABLES.iter().find(|known| **known == name) else {
                if !OTHERS.contains(&name) && !is_from_kubernetes(name) {
                    observability::unknown_variable(name);
                }
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| ConfigError::setting(name, "is not UTF-8"))?;
            if value.trim().is_empty() {
                let problem = "is set but empty; set it to a value or unset it";
                return Err(ConfigError::setting(name, problem));
            }
            found.insert(name, value);
        }
        if let Some(scope) = found.remove(SCOPE) {
            let scopes = found.entry(SCOPES).or_insert_with(|| scope.clone());
            let set = |text| syntax::words(text).collect::<BTreeSet<_>>();
            if set(scopes) != set(&scope) {
                let problem = format!("and {SCOPE} are both set and differ; keep one");
                return Err(ConfigError::setting(SCOPES, problem));
            }
        }
        // An error is about the variable that was read last. Values are moved: a copy of the secret would not be
        // wiped.
        let read = Cell::new(PREFIX);
        let fields = found.into_iter().map(|(name, value)| {
            read.set(name);
            (field_of(name).to_ascii_lowercase(), Value::String(value))
        });
        let mut settings = Self::deserialize(MapDeserializer::new(fields)).map_err(
            |error: serde_json::Error| {
                ConfigError::setting(read.get(), format!("is invalid: {error}"))
            },
        )?;
        settings.from_env = true;
        let checked = settings.check().and_then(|()| settings.policy());
        checked.map_err(|error| settings.named(error))?;
        Ok(settings)
    }

    /// Returns the credentials in these settings. Files are read when a provider is created.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] with the name of the setting that is missing, invalid, or set
    /// both as a value and as a file.
    pub fn credentials(&self) -> Result<ClientCredentials, ConfigError> {
        let id = self.client_id.clone().map(Secret::from);
        let id = self.part(("client_id", id), ("client_id_file", &self.client_id_file))?;
        let secret = self.part(
            ("client_secret", self.client_secret.clone()),
            ("client_secret_file", &self.client_secret_file),
        )?;
        if self.scopes.is_empty() {
            let problem = format!("is not set; OfficeRnD needs at least one, {SCOPE_EXAMPLES}");
            return Err(ConfigError::setting(self.name("scopes"), problem));
        }
        let mut credentials =
            ClientCredentials::of(Source::Parts { id, secret }).scopes(&self.scopes);
        if let Some(url) = &self.token_url {
            credentials = credentials.token_url(url);
        }
        credentials.check().map_err(|error| self.named(error))?;
        Ok(credentials)
    }

    /// Returns the value or the file, whichever is set.
    fn part(
        &self,
        (name, value): (&'static str, Option<Secret>),
        (file_name, file): (&'static str, &Option<PathBuf>),
    ) -> Result<Part, ConfigError> {
        let (name, file_name) = (self.name(name), self.name(file_name));
        let problem = match (value, file) {
            (Some(value), None) => {
                let part = Part::Value(value);
                return part.read(name).map(|_| part);
            }
            (None, Some(file)) => return Ok(Part::File(file.clone())),
            (Some(_), Some(_)) => format!("and {file_name} are both set; keep one"),
            (None, None) => format!("(or {file_name}) is not set"),
        };
        Err(ConfigError::setting(name, problem))
    }

    /// Returns the rate limit, if it is set.
    pub(crate) fn rate_limit(&self) -> Option<RateLimit> {
        if self.rate_limit_requests.is_none() && self.rate_limit_per.is_none() {
            return None;
        }
        let requests = self.rate_limit_requests.unwrap_or(OFFICERND.0);
        Some(RateLimit::new(
            requests,
            self.rate_limit_per.unwrap_or(OFFICERND.1),
        ))
    }

    /// Returns which requests carry the token.
    pub(crate) fn policy(&self) -> Result<Policy, ConfigError> {
        let mut policy = Policy::default();
        policy.pass_foreign = self.pass_foreign_origins;
        policy.if_not_present = self.if_not_present;
        for origin in &self.allow_origins {
            policy.allow(origin)?;
        }
        Ok(policy)
    }

    /// Checks that numbers and durations are within their ranges.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |name, problem: &str| Err(ConfigError::setting(name, problem));
        if !(0.0..=1.0).contains(&self.jitter) {
            return wrong("jitter", "is not between 0.0 and 1.0");
        }
        if self.expiry_margin >= TOKEN_LIFE {
            let problem =
                "must be less than the lifetime of a token (3,600 s); the default is 10 s";
            return wrong("expiry_margin", problem);
        }
        if self.refresh_ahead > MAX_LIFE {
            let problem = "is over the maximum of 24 h; the default is 15 min";
            return wrong("refresh_ahead", problem);
        }
        for (name, timeout) in [
            ("fetch_timeout", self.fetch_timeout),
            ("acquire_timeout", self.acquire_timeout),
        ] {
            if timeout.is_zero() {
                return wrong(name, "is zero; set a longer time");
            }
            if timeout > MAX_LIFE {
                return wrong(name, "is over the maximum of 24 h");
            }
        }
        Ok(())
    }

    /// Returns the name of the field, or of its variable.
    fn name(&self, field: &'static str) -> &'static str {
        if !self.from_env {
            return field;
        }
        let variable = |name: &&&str| field_of(name).eq_ignore_ascii_case(field);
        VARIABLES.iter().find(variable).unwrap_or(&field)
    }

    fn named(&self, error: ConfigError) -> ConfigError {
        match error {
            ConfigError::Setting { name, problem } => {
                ConfigError::setting(self.name(name), problem)
            }
            error => error,
        }
    }
}

/// Returns the name of a variable's field, in upper case.
fn field_of(variable: &str) -> &str {
    variable.strip_prefix(PREFIX).unwrap_or(variable)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may contain a password, which `build` reports as an error.
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
            .field("rate_limit_requests", &self.rate_limit_requests)
            .field("rate_limit_per", &self.rate_limit_per)
            .field("keep_warm", &self.keep_warm)
            .finish()
    }
}

/// Returns `true` for a variable that Kubernetes sets for a Service, such as `OFFICERND_SERVICE_HOST`.
fn is_from_kubernetes(name: &str) -> bool {
    let name = format!("{name}_");
    name.contains("_PORT_") || name.contains("_SERVICE_")
}

// The messages below do not show the value, because it may be a misplaced secret.

fn duration<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    humantime_serde::Serde<T>: Deserialize<'de>,
{
    let read = humantime_serde::deserialize(from);
    read.map_err(|_| {
        D::Error::custom("a duration needs a unit, such as \"250ms\", \"10s\", \"1h 30m\"")
    })
}

fn text<'de, D: Deserializer<'de>, T: From<String>>(from: D) -> Result<Option<T>, D::Error> {
    match Option::<String>::deserialize(from) {
        Ok(text) => Ok(text.map(T::from)),
        Err(_) => Err(D::Error::custom(
            "a string is expected; put digits in quotes",
        )),
    }
}

fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    const FORMS: &str = "a list of strings, or a string separated by spaces or commas is expected";
    match TextOr::deserialize(from) {
        Ok(TextOr::Value(list)) => Ok(list),
        Ok(TextOr::Text(text)) => Ok(syntax::words(&text).map(str::to_owned).collect()),
        Err(_) => Err(D::Error::custom(FORMS)),
    }
}

/// A number, a boolean or a list, which is a string in the environment.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, true or false is expected")]
enum TextOr<T> {
    Value(T),
    Text(String),
}

fn optional<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: fmt::Display>,
{
    match Option::<TextOr<T>>::deserialize(from)? {
        None => Ok(None),
        Some(TextOr::Value(value)) => Ok(Some(value)),
        Some(TextOr::Text(text)) => text.trim().parse().map(Some).map_err(D::Error::custom),
    }
}

fn value<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: fmt::Display>,
{
    optional(from)?.ok_or_else(|| D::Error::custom("a number, true or false is expected"))
}
