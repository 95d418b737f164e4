//! Every setting as plain data, and the only reader of the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

use crate::credentials::{ClientCredentials, Part, SCOPE_EXAMPLES};
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

/// Variables of programs around this crate.
const OTHERS: [&str; 2] = ["OFFICERND_ORG_SLUG", "OFFICERND_API_URL"];

/// How long OfficeRnD's tokens live.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// All settings of a layer, as plain data.
///
/// [`from_env`](Self::from_env) reads them from the environment, and any serde format from a file.
/// An unknown name in a file is an error, so that a misspelt setting is found at start-up.
///
/// Durations are text with a unit: `"250ms"`, `"10s"`, `"5m"`, `"1h 30m"`. Numbers and booleans may
/// be text too. `Debug` shows no secret.
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
    /// The file that holds the client id. It is read again before each token request, together
    /// with the secret's.
    #[serde(deserialize_with = "text")]
    pub client_id_file: Option<PathBuf>,
    /// The app's client secret. Required, unless `client_secret_file` is set.
    #[serde(deserialize_with = "text")]
    pub client_secret: Option<Secret>,
    /// The file that holds the client secret. It is read again before each token request.
    #[serde(deserialize_with = "text")]
    pub client_secret_file: Option<PathBuf>,
    /// The scopes to request, at least one: a list, or text separated by spaces or commas.
    #[serde(alias = "scope", deserialize_with = "list")]
    pub scopes: Vec<String>,
    /// The token endpoint. Default: `https://identity.officernd.com/oauth/token`.
    #[serde(deserialize_with = "text")]
    pub token_url: Option<String>,
    /// Origins that may receive the token, in addition to `https://app.officernd.com` and
    /// `https://hybrid.officernd.com`. Default: none.
    /// [`Builder::allow_origin`](crate::Builder::allow_origin) describes the forms.
    #[serde(deserialize_with = "list")]
    pub allow_origins: Vec<String>,
    /// Sends requests to other origins without a token instead of failing them. Default: `false`.
    #[serde(deserialize_with = "value")]
    pub pass_foreign_origins: bool,
    /// Keeps the `Authorization` header of requests that have one. Default: `false`, it is replaced.
    #[serde(deserialize_with = "value")]
    pub if_not_present: bool,
    /// Refreshes a token in the background this long before its expiry. Default: 15 min, at most
    /// half the token's life.
    #[serde(deserialize_with = "duration")]
    pub refresh_ahead: Duration,
    /// Shortens the time up to the refresh at random, by at most this share (0.0 to 1.0).
    /// Default: 0.1.
    #[serde(deserialize_with = "value")]
    pub jitter: f32,
    /// Stops using a token this long before its expiry. Default: 10 s, at most a tenth of the
    /// token's life.
    #[serde(deserialize_with = "duration")]
    pub expiry_margin: Duration,
    /// Ends a token request that takes longer. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub fetch_timeout: Duration,
    /// Fails a request that waits for a token longer. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub acquire_timeout: Duration,
    /// The number of token requests in `rate_limit_per`. Default: 5. If neither of the two is set,
    /// all caches of the process on one token URL share one window.
    #[serde(deserialize_with = "optional")]
    pub rate_limit_requests: Option<u32>,
    /// The length of the rate limit's window. Default: 60 s.
    #[serde(deserialize_with = "duration")]
    pub rate_limit_per: Option<Duration>,
    /// Refreshes the token on a timer while there are no requests. Default: `false`.
    #[serde(deserialize_with = "value")]
    pub keep_warm: bool,
    /// Errors name the variable instead of the field.
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
    /// Reads the environment: `OFFICERND_CLIENT_ID` is `client_id`, and so on for each setting.
    ///
    /// Values are text: digits, `true` and quotes in a secret are part of it. `OFFICERND_SCOPE`
    /// is another name of `OFFICERND_SCOPES`. A misspelt name is reported as a WARN event.
    ///
    /// The credentials may be missing; [`credentials`](Self::credentials) and
    /// [`layer`](Self::layer) report that.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] with the name of the variable that is empty, not UTF-8 or
    /// invalid, or that contradicts another.
    ///
    /// ```no_run
    /// use officernd_auth::Settings;
    ///
    /// # #[cfg(feature = "reqwest")]
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let mut settings = Settings::from_env()?;
    /// settings.keep_warm = true;
    /// let layer = settings.layer()?;
    /// # drop(layer);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "reqwest"))]
    /// # fn main() {}
    /// ```
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(std::env::vars_os())
    }

    /// `variables` stands for the environment, which tests must not change.
    fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut found = BTreeMap::new();
        for (name, value) in variables {
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
        let mut all = serde_json::Map::new();
        for (name, value) in found {
            let field = name.trim_start_matches(PREFIX).to_ascii_lowercase();
            // By itself first, so that the error names its variable.
            let one = Value::from_iter([(field.clone(), value.clone())]);
            Self::deserialize(one)
                .map_err(|error| ConfigError::setting(name, format!("is invalid: {error}")))?;
            all.insert(field, value.into());
        }
        let read = Self::deserialize(Value::Object(all));
        let mut settings =
            read.map_err(|error| ConfigError::setting("OFFICERND_*", error.to_string()))?;
        settings.from_env = true;
        let checked = settings.check().and_then(|()| settings.policy());
        checked.map_err(|error| settings.named(error))?;
        Ok(settings)
    }

    /// Returns the credentials in these settings.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Setting`] with the name of the setting that is missing, invalid, or
    /// set both as a value and as a file. The files are read when a provider is made.
    ///
    /// ```
    /// use officernd_auth::Settings;
    ///
    /// let error = Settings::default().credentials().unwrap_err();
    /// assert_eq!(error.to_string(), "client_id (or client_id_file) is not set");
    /// ```
    pub fn credentials(&self) -> Result<ClientCredentials, ConfigError> {
        let part = |field, value: Option<Secret>, file_field, file: &Option<PathBuf>| {
            let (name, file_name) = (self.name(field), self.name(file_field));
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
        };
        let id = self.client_id.clone().map(Secret::from);
        let id = part("client_id", id, "client_id_file", &self.client_id_file)?;
        let secret = part(
            "client_secret",
            self.client_secret.clone(),
            "client_secret_file",
            &self.client_secret_file,
        )?;
        if self.scopes.is_empty() {
            let problem = format!("is not set; OfficeRnD needs at least one, {SCOPE_EXAMPLES}");
            return Err(ConfigError::setting(self.name("scopes"), problem));
        }
        let credentials = ClientCredentials::of_pair(id, secret).scopes(&self.scopes);
        let credentials = match &self.token_url {
            Some(url) => credentials.token_url(url),
            None => credentials,
        };
        credentials.check().map_err(|error| self.named(error))?;
        Ok(credentials)
    }

    /// The rate limit, if it is not the provider's own.
    pub(crate) fn rate_limit(&self) -> Option<RateLimit> {
        match (self.rate_limit_requests, self.rate_limit_per) {
            (None, None) => None,
            (requests, per) => Some(RateLimit::new(
                requests.unwrap_or(OFFICERND.0),
                per.unwrap_or(OFFICERND.1),
            )),
        }
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

    /// Checks that numbers and durations are in their ranges.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let timeouts = [
            ("fetch_timeout", self.fetch_timeout),
            ("acquire_timeout", self.acquire_timeout),
        ];
        let zero = timeouts.iter().find(|(_, timeout)| timeout.is_zero());
        let endless = timeouts.iter().find(|(_, timeout)| *timeout > MAX_LIFE);
        let (name, problem) = if !(0.0..=1.0).contains(&self.jitter) {
            ("jitter", "is not between 0.0 and 1.0")
        } else if self.expiry_margin >= TOKEN_LIFE {
            (
                "expiry_margin",
                "is as long as a token lives (3,600 s) or longer; at most a tenth of a life is \
                 used, and the default is 10 s",
            )
        } else if self.refresh_ahead > MAX_LIFE {
            (
                "refresh_ahead",
                "is over 24 h, longer than any token lives; the default is 15 min",
            )
        } else if let Some((name, _)) = zero {
            (*name, "is zero: no token could ever arrive")
        } else if let Some((name, _)) = endless {
            (*name, "is over 24 h: that is no bound")
        } else {
            return Ok(());
        };
        Err(ConfigError::setting(name, problem))
    }

    /// The name that a user wrote: the field's, or the variable's.
    fn name(&self, field: &'static str) -> &'static str {
        let is_it = |variable: &&str| {
            let name = variable.strip_prefix(PREFIX);
            name.is_some_and(|name| name.eq_ignore_ascii_case(field))
        };
        let variable = VARIABLES.into_iter().find(is_it);
        variable.filter(|_| self.from_env).unwrap_or(field)
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
            .field("rate_limit_requests", &self.rate_limit_requests)
            .field("rate_limit_per", &self.rate_limit_per)
            .field("keep_warm", &self.keep_warm)
            .finish()
    }
}

/// Returns whether Kubernetes makes this variable for a Service whose name begins with
/// `officernd`, such as `OFFICERND_PORT` and `OFFICERND_SERVICE_HOST`.
fn is_from_kubernetes(name: &str) -> bool {
    let name = format!("{name}_");
    name.contains("_PORT_") || name.contains("_SERVICE_")
}

// No message below shows the value: it may be a secret in the wrong place.

fn duration<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    humantime_serde::Serde<T>: Deserialize<'de>,
{
    let read = humantime_serde::deserialize(from);
    read.map_err(|_| {
        D::Error::custom("a duration has a unit, as in \"250ms\", \"10s\", \"1h 30m\"")
    })
}

fn text<'de, D: Deserializer<'de>, T: From<String>>(from: D) -> Result<Option<T>, D::Error> {
    match Option::<String>::deserialize(from) {
        Ok(text) => Ok(text.map(T::from)),
        Err(_) => Err(D::Error::custom("this must be text; put digits in quotes")),
    }
}

fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "this must be a list of texts, or one text separated by spaces or commas"
    )]
    enum List {
        Text(String),
        Texts(Vec<String>),
    }
    Ok(match List::deserialize(from)? {
        List::Text(text) => syntax::words(&text).map(str::to_owned).collect(),
        List::Texts(texts) => texts,
    })
}

/// A number or a boolean, which is text in the environment.
#[derive(Deserialize)]
#[serde(untagged, expecting = "this must be a number, true or false")]
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
    optional(from)?.ok_or_else(|| D::Error::custom("this must be a number, true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: [(&str, &str); 3] = [
        ("OFFICERND_CLIENT_ID", "id"),
        ("OFFICERND_CLIENT_SECRET", "hunter2"),
        ("OFFICERND_SCOPE", "a b"),
    ];

    /// Reads sound variables with these in their place; "-" stands for unset.
    fn with(changes: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let mut all = BTreeMap::from(SOUND);
        all.extend(changes.iter().copied());
        all.retain(|_, value| *value != "-");
        Settings::read(
            all.into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn a_secret_in_the_environment_is_text_whatever_it_looks_like() {
        for secret in [
            "31415926", "true", "[x]", "1e5", "'quoted'", "\"a\"", " a ", "{}",
        ] {
            let settings = with(&[
                ("OFFICERND_CLIENT_SECRET", secret),
                ("OFFICERND_CLIENT_ID", secret),
            ]);
            let settings = settings.unwrap();
            assert_eq!(settings.client_id.as_deref(), Some(secret));
            assert_eq!(settings.client_secret.unwrap().expose(), secret);
        }
    }

    #[test]
    fn every_variable_is_read() {
        let values = [
            ("CLIENT_ID", "-"),
            ("CLIENT_SECRET", "-"),
            ("CLIENT_ID_FILE", "/id"),
            ("CLIENT_SECRET_FILE", "/secret"),
            ("SCOPE", "-"),
            ("SCOPES", "a, b\nc"),
            (
                "TOKEN_URL",
                "https://identity-staging.officernd.com/oauth/token",
            ),
            ("ALLOW_ORIGINS", "https://a.example https://b.example"),
            ("PASS_FOREIGN_ORIGINS", "true"),
            ("IF_NOT_PRESENT", "true"),
            ("REFRESH_AHEAD", "1h 30m"),
            ("JITTER", "0"),
            ("EXPIRY_MARGIN", "250ms"),
            ("FETCH_TIMEOUT", "2s"),
            ("ACQUIRE_TIMEOUT", "1m"),
            ("RATE_LIMIT_REQUESTS", "3"),
            ("RATE_LIMIT_PER", "2m"),
            ("KEEP_WARM", "true"),
        ];
        let names = values.map(|(name, _)| format!("{PREFIX}{name}"));
        assert_eq!(
            BTreeSet::from(names.each_ref().map(|name| &**name)),
            BTreeSet::from(VARIABLES)
        );
        let pairs: Vec<(&str, &str)> = names
            .iter()
            .map(|name| &**name)
            .zip(values.map(|(_, value)| value))
            .collect();
        let settings = with(&pairs).unwrap();
        let shown = format!("{settings:?}");
        let wanted = "Settings { client_id: None, client_id_file: Some(\"/id\"), client_secret: None, \
            client_secret_file: Some(\"/secret\"), scopes: [\"a\", \"b\", \"c\"], \
            token_url: Some(\"https://identity-staging.officernd.com/oauth/token\"), \
            allow_origins: [\"https://a.example\", \"https://b.example\"], pass_foreign_origins: true, \
            if_not_present: true, refresh_ahead: 5400s, jitter: 0.0, expiry_margin: 250ms, fetch_timeout: 2s, \
            acquire_timeout: 60s, rate_limit_requests: Some(3), rate_limit_per: Some(120s), keep_warm: true }";
        assert_eq!(shown, wanted);
        settings.credentials().unwrap();
    }

    #[test]
    fn other_variables_are_left_alone() {
        let settings = with(&[
            ("OFFICERND_PORT", "tcp://10.0.0.1:80"),
            ("OFFICERND_SERVICE_HOST", "10.0.0.1"),
            ("OFFICERND_MAX_ORGANIZATIONS", "17"),
            ("OFFICERND_ORG_SLUG", "acme"),
            ("OFFICERND_CLIENT_IDS", ""),
            ("KEEP_WARM", "true"),
        ]);
        assert!(!settings.unwrap().keep_warm);
    }

    #[test]
    fn the_variables_of_a_kubernetes_service_are_known() {
        for name in [
            "OFFICERND_SERVICE_HOST",
            "OFFICERND_SERVICE_PORT",
            "OFFICERND_SERVICE_PORT_HTTP",
            "OFFICERND_PORT",
            "OFFICERND_PORT_80_TCP",
            "OFFICERND_PORT_80_TCP_PROTO",
            "OFFICERND_GATEWAY_PORT_8080_TCP_ADDR",
        ] {
            assert!(is_from_kubernetes(name), "{name}");
        }
        for name in ["OFFICERND_EXPORT", "OFFICERND_SERVICES", "OFFICERND_SCOPED"] {
            assert!(!is_from_kubernetes(name), "{name}");
        }
    }

    #[test]
    fn the_two_names_of_the_scopes_must_agree() {
        for (one, other) in [
            ("a b", "b,a"),
            ("a, b", "a  b a"),
            ("-", "a b"),
            ("a b", "-"),
        ] {
            let settings = with(&[("OFFICERND_SCOPE", one), ("OFFICERND_SCOPES", other)]);
            let scopes: BTreeSet<String> = settings.unwrap().scopes.into_iter().collect();
            assert_eq!(scopes, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        }
        let error = with(&[("OFFICERND_SCOPE", "a"), ("OFFICERND_SCOPES", "a b")]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(SCOPES) && error.contains("OFFICERND_SCOPE are"),
            "{error}"
        );
    }

    #[test]
    fn each_mistake_names_its_variable() {
        #[rustfmt::skip]
        let table: [(&str, &str, &[&str]); 23] = [
            ("CLIENT_ID", "-", &["CLIENT_ID", "CLIENT_ID_FILE", "not set"]),
            ("CLIENT_ID_FILE", "/x", &["CLIENT_ID", "CLIENT_ID_FILE", "both set"]),
            ("CLIENT_ID", "", &["CLIENT_ID", "empty"]),
            ("CLIENT_ID", "a\nb", &["CLIENT_ID", "control"]),
            ("CLIENT_SECRET", "-", &["CLIENT_SECRET", "CLIENT_SECRET_FILE", "not set"]),
            ("CLIENT_SECRET", " ", &["CLIENT_SECRET", "empty"]),
            ("CLIENT_SECRET", "hunter2\n", &["CLIENT_SECRET", "newline"]),
            ("CLIENT_SECRET_FILE", "/x", &["CLIENT_SECRET", "CLIENT_SECRET_FILE", "both set"]),
            ("CLIENT_SECRET_FILE", "", &["CLIENT_SECRET_FILE", "empty"]),
            ("SCOPE", "-", &["SCOPES", "not set"]),
            ("SCOPE", ",", &["SCOPES", "not set"]),
            ("SCOPE", "a\"", &["SCOPES", "RFC 6749"]),
            ("TOKEN_URL", "/oauth", &["TOKEN_URL", "relative"]),
            ("TOKEN_URL", "http://example.com/", &["TOKEN_URL", "https"]),
            ("ALLOW_ORIGINS", "https://a.example b.example", &["ALLOW_ORIGINS", "b.example", "scheme"]),
            ("JITTER", "1.5", &["JITTER", "between"]),
            ("JITTER", "hunter2", &["JITTER", "invalid"]),
            ("KEEP_WARM", "hunter2", &["KEEP_WARM", "true"]),
            ("RATE_LIMIT_REQUESTS", "-1", &["RATE_LIMIT_REQUESTS", "invalid"]),
            ("RATE_LIMIT_PER", "60", &["RATE_LIMIT_PER", "unit"]),
            ("FETCH_TIMEOUT", "hunter2", &["FETCH_TIMEOUT", "unit"]),
            ("FETCH_TIMEOUT", "0s", &["FETCH_TIMEOUT", "zero"]),
            ("ACQUIRE_TIMEOUT", "", &["ACQUIRE_TIMEOUT", "empty"]),
        ];
        for (name, value, parts) in table {
            let settings = with(&[(&format!("{PREFIX}{name}"), value)]);
            let error = settings
                .and_then(|settings| settings.credentials())
                .unwrap_err();
            let (name, parts) = parts.split_first().unwrap();
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("{PREFIX}{name} ")), "{shown}");
            assert!(matches!(error, ConfigError::Setting { .. }), "{shown}");
            for part in parts {
                assert!(shown.contains(part), "{shown}");
            }
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_an_error() {
        use std::os::unix::ffi::OsStringExt as _;

        let value = OsString::from_vec(b"a\xFF".to_vec());
        let error = Settings::read([("OFFICERND_CLIENT_ID".into(), value)].into_iter());
        assert_eq!(
            error.unwrap_err().to_string(),
            "OFFICERND_CLIENT_ID is not UTF-8"
        );
    }
}
