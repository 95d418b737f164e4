//! The configuration: one struct, read from a TOML file and from environment variables over it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use officernd_auth::Settings;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::{Table, Value};

/// All settings. README.md has a table of them. Not `Debug`: they contain secrets.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    pub(crate) admin: SocketAddr,
    #[serde(deserialize_with = "origin")]
    pub(crate) upstream: Uri,
    /// The organization of the only app, for the status page and for `check`.
    pub(crate) org_slug: Option<String>,
    pub(crate) default_organization: Option<String>,
    pub(crate) store: Option<String>,
    pub(crate) store_file: Option<PathBuf>,
    pub(crate) store_ca_file: Option<PathBuf>,
    pub(crate) connections: NonZeroU16,
    /// In bytes.
    pub(crate) body_limit: usize,
    /// Also how long a connection may be idle before its next request.
    #[serde(deserialize_with = "duration")]
    pub(crate) head_timeout: Duration,
    /// From the request's last byte to the head of the response, without the wait for a token.
    #[serde(deserialize_with = "duration")]
    pub(crate) answer_timeout: Duration,
    /// How long a body may pause, in either direction.
    #[serde(deserialize_with = "duration")]
    pub(crate) body_timeout: Duration,
    /// For requests in flight after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub(crate) shutdown_timeout: Duration,
    /// The library's settings, `OFFICERND_*`.
    pub(crate) officernd: Settings,
    /// The settings of each organization's app, by slug; `officernd` has their defaults.
    pub(crate) organizations: BTreeMap<String, Settings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            upstream: Uri::from_static("https://app.officernd.com"),
            org_slug: None,
            default_organization: None,
            store: None,
            store_file: None,
            store_ca_file: None,
            connections: NonZeroU16::MIN.saturating_add(1023),
            body_limit: 32 * 1024 * 1024,
            head_timeout: Duration::from_secs(90),
            answer_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(25),
            officernd: Settings::default(),
            organizations: BTreeMap::new(),
        }
    }
}

/// The path of an invalid setting, such as `officernd.jitter`, and why it is invalid.
type Invalid = (String, String);

impl Config {
    /// Reads the file, if one is named here or by `GATEWAY_CONFIG`, and then the environment. The error
    /// names the first invalid setting and does not show a value that may be a secret.
    pub(crate) fn read(file: Option<PathBuf>) -> Result<Self, String> {
        let file = file.or_else(|| std::env::var_os("GATEWAY_CONFIG").map(PathBuf::from));
        let table = file.as_deref().map(read_file).transpose()?;
        let mut table = table.unwrap_or_default();
        let shared = table.get_mut("officernd").and_then(Value::as_table_mut);
        let renamed = shared.map_or(Ok(()), |shared| rename_scope("officernd", shared));
        let variables = variables()?;
        for (path, (_, value)) in &variables {
            match path.split_once('.') {
                None => drop(table.insert(path.clone(), value.clone())),
                Some((section, key)) => {
                    let section = table.entry(section).or_insert_with(|| Table::new().into());
                    // serde reports a section that is not a table.
                    if let Some(section) = section.as_table_mut() {
                        section.insert(key.to_owned(), value.clone());
                    }
                }
            }
        }
        let shared = renamed.and_then(|()| share_with_organizations(&mut table));
        let config = shared.and_then(|()| {
            let config: Self = serde_path_to_error::deserialize(Value::Table(table))
                .map_err(|error| (error.path().to_string(), error.inner().message().to_owned()))?;
            config.check()
        });
        config.map_err(|(path, problem)| {
            let variable = variables.get(&path).map(|(name, _)| name.as_str());
            let place = match (variable, &file) {
                (Some(name), _) => name.to_owned(),
                (None, Some(file)) => format!("{}: {path}", file.display()),
                (None, None) => path,
            };
            format!("{place}: {}", explain(problem, variable))
        })
    }

    /// Checks settings against each other, and completes those of the apps.
    fn check(mut self) -> Result<Self, Invalid> {
        let invalid = |path: &str, problem: String| Err((path.to_owned(), problem));
        if let Listen::Tcp(listen) = self.listen
            && listen.port() == self.admin.port()
            && listen.port() != 0
        {
            let problem = format!("port {} is the API's (GATEWAY_LISTEN)", listen.port());
            return invalid("admin", problem);
        }
        let is_slug = |text: &str| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=63).contains(&text.len()) && text.bytes().all(valid)
        };
        let slugs = self.organizations.keys();
        let slugs = slugs.map(|slug| ("organizations", slug));
        let mut slugs = slugs.chain(self.org_slug.iter().map(|slug| ("org_slug", slug)));
        if let Some((path, slug)) = slugs.find(|(_, slug)| !is_slug(slug)) {
            let problem = "is not a slug: 1 to 63 letters, digits, '-' and '_'";
            return invalid(path, format!("{slug:?} {problem}"));
        }
        if let Some(slug) = &self.default_organization
            && !self.organizations.contains_key(slug)
        {
            let problem = format!("[organizations.{slug}] is missing");
            return invalid("default_organization", problem);
        }
        let upstream = self.upstream.to_string();
        for settings in self.organizations.values_mut().chain([&mut self.officernd]) {
            settings.allow_origins.push(upstream.clone());
            // A caller must not choose the credentials.
            settings.if_not_present = false;
        }
        Ok(self)
    }

    /// Returns the API's origin without a slash at the end.
    pub(crate) fn upstream_text(&self) -> String {
        self.upstream.to_string().trim_end_matches('/').to_owned()
    }
}

fn read_file(path: &Path) -> Result<Table, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    text.parse::<Table>().map_err(|error| {
        // Not its `Display`, which quotes the line: that may hold a secret.
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.unwrap_or_default().matches('\n').count() + 1;
        format!("{shown}, line {line}: {}", error.message())
    })
}

/// Reads the environment: the path of each setting, with its variable and value. A secret of digits stays text.
fn variables() -> Result<BTreeMap<String, (String, Value)>, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        // Kubernetes sets these for a Service called `gateway` or `officernd`: `GATEWAY_PORT`,
        // `GATEWAY_PORT_8080_TCP_ADDR`, `OFFICERND_SERVICE_HOST`.
        let parts = format!("{name}_");
        let is_from_kubernetes = parts.contains("_PORT_") || parts.contains("_SERVICE_");
        let path = match name.split_once('_') {
            // Not settings: for `Config::read`, and for programs beside the gateway.
            _ if matches!(name, "GATEWAY_CONFIG" | "OFFICERND_API_URL") => continue,
            _ if is_from_kubernetes => continue,
            Some(("OFFICERND", "ORG_SLUG")) => "org_slug".to_owned(),
            Some(("OFFICERND", "SCOPE")) => "officernd.scopes".to_owned(),
            Some(("OFFICERND", key)) => format!("officernd.{}", key.to_ascii_lowercase()),
            Some(("GATEWAY", "OFFICERND" | "ORGANIZATIONS")) => {
                return Err(format!("{name}: is a table; set it in a file"));
            }
            Some(("GATEWAY", key)) => key.to_ascii_lowercase(),
            _ => continue,
        };
        let value = value.into_string();
        let value = value.map_err(|_| format!("{name}: is not UTF-8"))?;
        if value.trim().is_empty() {
            let problem = "is set but empty; set it to a value or unset it";
            return Err(format!("{name}: {problem}"));
        }
        let number = matches!(path.as_str(), "connections" | "body_limit");
        let value = match value.parse() {
            Ok(integer) if number => Value::Integer(integer),
            _ => Value::String(value),
        };
        if let Some((other, before)) = variables.get(&path)
            && *before != value
            && (path != "officernd.scopes" || words(before) != words(&value))
        {
            let problem = "are both set and differ; keep one";
            return Err(format!("{name} and {other} {problem}"));
        }
        variables.insert(path, (name.to_owned(), value));
    }
    Ok(variables)
}

/// Renames `scope`, an alias, so that tables and variables that set one or the other merge by one name.
fn rename_scope(section: &str, settings: &mut Table) -> Result<(), Invalid> {
    let Some(scope) = settings.remove("scope") else {
        return Ok(());
    };
    let scopes = settings.entry("scopes").or_insert_with(|| scope.clone());
    if words(scopes) == words(&scope) {
        return Ok(());
    }
    let problem = "and scopes are both set and differ; keep one";
    Err((format!("{section}.scope"), problem.to_owned()))
}

/// Returns the set of scopes in a list, or in a string separated by spaces or commas.
fn words(scopes: &Value) -> BTreeSet<&str> {
    let list = scopes.as_array().into_iter().flatten();
    let texts = list.chain([scopes]).filter_map(Value::as_str);
    let is_separator = |c: char| c == ',' || c.is_whitespace();
    let words = texts.flat_map(|text| text.split(is_separator));
    words.filter(|word| !word.is_empty()).collect()
}

/// Copies the settings of `[officernd]` into each `[organizations.SLUG]` that does not set them.
fn share_with_organizations(table: &mut Table) -> Result<(), Invalid> {
    let shared = table.get("officernd").and_then(Value::as_table);
    let shared = shared.cloned().unwrap_or_default();
    let organizations = table.get_mut("organizations").and_then(Value::as_table_mut);
    let Some(organizations) = organizations.filter(|tables| !tables.is_empty()) else {
        return Ok(());
    };
    if let Some(key) = shared.keys().find(|key| key.starts_with("client_")) {
        let problem = "belongs in each [organizations.SLUG]: every organization has its own app";
        return Err((format!("officernd.{key}"), problem.to_owned()));
    }
    let tables = organizations.iter_mut();
    for (slug, own) in tables.filter_map(|(slug, own)| Some((slug, own.as_table_mut()?))) {
        rename_scope(&format!("organizations.{slug}"), own)?;
        for (key, value) in &shared {
            own.entry(key).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}

/// Replaces serde's "unknown field `a`, expected one of `b`, `c`" by a message that suggests the nearest
/// known setting, and removes a value of the wrong type, which may be a misplaced secret.
fn explain(problem: String, variable: Option<&str>) -> String {
    // The last comma: the value may contain these words.
    if let Some((wrong, expected)) = problem.rsplit_once(", expected ")
        && wrong.starts_with("invalid ")
    {
        return format!("is not of the right type: expected {expected}");
    }
    let mut names = problem.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (problem.starts_with("unknown field"), names.next()) else {
        return problem;
    };
    let distance = |known: &&str| strsim::damerau_levenshtein(unknown, known);
    let nearest = names.min_by_key(distance).unwrap_or_default();
    let nearest = match variable.and_then(|name| name.split_once('_')) {
        Some((prefix, _)) => format!("{prefix}_{}", nearest.to_uppercase()),
        None => nearest.to_owned(),
    };
    format!("is not a setting; did you mean {nearest}?")
}

/// Where the API listens: on loopback or on a Unix socket.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => return Ok(Self::Unix(path.into())),
            Some(_) => return Err(format!("{text} is not an absolute path after unix:")),
            None => {}
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("{text} is neither an address with a port nor unix:/path"))?;
        match address.ip().to_string().as_str() {
            "127.0.0.1" | "::1" => Ok(Self::Tcp(address)),
            _ => Err(format!(
                "{text} is not 127.0.0.1 or [::1]: every program that can connect gets access to \
                 your data. Run a gateway beside each program instead"
            )),
        }
    }
}

/// Rejects a path, which would be dropped, and a pattern, which is not a host.
fn origin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_origin = |uri: &Uri| {
        let local = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let scheme = uri.scheme_str();
        let safe = scheme == Some("https") || (scheme == Some("http") && local);
        safe && uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '*'])
    };
    let uri = text.parse().ok().filter(is_origin);
    let problem = "is not https://HOST (or http:// for this machine) without a path";
    uri.ok_or_else(|| D::Error::custom(problem))
}

/// Reads a duration such as "250ms" or "10s": more than zero, less than a day.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration: Duration = humantime_serde::deserialize(deserializer)
        .map_err(|_| D::Error::custom("is not a duration such as \"250ms\", \"10s\" or \"5m\""))?;
    match duration.as_secs() {
        _ if duration.is_zero() => Err(D::Error::custom("must not be zero")),
        86_400.. => Err(D::Error::custom("must be less than a day")),
        _ => Ok(duration),
    }
}
