//! The configuration: one struct, from a TOML file under environment variables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use officernd_auth::Settings;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::{Table, Value};

/// All settings, as README.md lists them. Not `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where callers reach the API.
    pub(crate) listen: Listen,
    /// Where probes, Prometheus and the page are; never the API.
    pub(crate) admin: SocketAddr,
    /// The API.
    #[serde(deserialize_with = "origin")]
    pub(crate) upstream: Uri,
    /// The organization of the only app, for the page and for `check`.
    pub(crate) org_slug: Option<String>,
    /// The organization of paths that name none.
    pub(crate) default_organization: Option<String>,
    /// Where gateways share tokens: a URL that may hold a password.
    pub(crate) store: Option<String>,
    /// A file that holds `store`.
    pub(crate) store_file: Option<PathBuf>,
    /// PEM certificates to trust for `rediss://`, instead of the system's.
    pub(crate) store_ca_file: Option<PathBuf>,
    /// Connections to the API at once; more wait to be accepted.
    pub(crate) connections: NonZeroU16,
    /// Bytes of a request's body.
    pub(crate) body_limit: usize,
    /// For a request's head to arrive, and for the next request of an idle connection.
    #[serde(deserialize_with = "duration")]
    pub(crate) head_timeout: Duration,
    /// For the head of the answer, from the last byte of the request that moved.
    #[serde(deserialize_with = "duration")]
    pub(crate) answer_timeout: Duration,
    /// For a body to stand still, in either direction.
    #[serde(deserialize_with = "duration")]
    pub(crate) body_timeout: Duration,
    /// For requests in flight after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub(crate) shutdown_timeout: Duration,
    /// The library's settings, `OFFICERND_*`.
    pub(crate) officernd: Settings,
    /// The settings of each organization's app, over those in `officernd`.
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

/// Where a mistake is, as `officernd.jitter`, and what it is.
type Mistake = (String, String);

/// The settings in the environment: each path with the variable and its value.
type Variables = BTreeMap<String, (String, Value)>;

impl Config {
    /// Reads the file, if one is named here or by `GATEWAY_CONFIG`, and the environment over it. The
    /// error says where the first mistake is, and shows no value that may be a secret.
    pub(crate) fn read(file: Option<PathBuf>) -> Result<Self, String> {
        let file = file.or_else(|| std::env::var_os("GATEWAY_CONFIG").map(PathBuf::from));
        let mut table = match &file {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        let variables = variables()?;
        for (path, (_, value)) in &variables {
            match path.split_once('.') {
                None => drop(table.insert(path.clone(), value.clone())),
                Some((section, key)) => {
                    let section = table.entry(section).or_insert_with(|| Table::new().into());
                    let Some(section) = section.as_table_mut() else {
                        continue;
                    };
                    section.insert(key.to_owned(), value.clone());
                }
            }
        }
        let config = share_with_organizations(&mut table).and_then(|()| {
            let read = serde_path_to_error::deserialize::<_, Self>(Value::Table(table));
            let read = read
                .map_err(|error| (error.path().to_string(), error.inner().message().to_owned()));
            read?.check()
        });
        config.map_err(|(path, problem)| {
            let variable = variables.get(&path).map(|(name, _)| name.as_str());
            let place = match (variable, &file) {
                (Some(name), _) => name.to_owned(),
                (None, Some(file)) => format!("{}: {path}", file.display()),
                (None, None) => path,
            };
            format!("{place}: {}", with_nearest(problem, variable))
        })
    }

    /// Checks what no setting says alone, and sets what the gateway decides.
    fn check(mut self) -> Result<Self, Mistake> {
        let mistake = |path: &str, problem: String| Err((path.to_owned(), problem));
        if let Listen::Tcp(listen) = self.listen
            && listen.port() == self.admin.port()
            && listen.port() != 0
        {
            return mistake("admin", format!("uses port {} too", listen.port()));
        }
        let organizations = self.organizations.keys();
        let slugs = organizations.map(|slug| ("organizations", slug));
        let mut slugs = slugs.chain(self.org_slug.iter().map(|slug| ("org_slug", slug)));
        if let Some((path, slug)) = slugs.find(|(_, slug)| !is_slug(slug)) {
            let problem = format!("{slug:?} is no slug: letters, digits, '-' and '_', at most 63");
            return mistake(path, problem);
        }
        if let Some(slug) = &self.default_organization
            && !self.organizations.contains_key(slug)
        {
            let problem = format!("[organizations.{slug}] is missing");
            return mistake("default_organization", problem);
        }
        let upstream = self.upstream.to_string();
        for settings in self.organizations.values_mut().chain([&mut self.officernd]) {
            settings.allow_origins.push(upstream.clone());
            // A gateway replaces its callers' credentials.
            settings.if_not_present = false;
        }
        Ok(self)
    }

    /// The API's origin, as in the log.
    pub(crate) fn upstream_text(&self) -> String {
        self.upstream.to_string().trim_end_matches('/').to_owned()
    }

    /// The apps by slug. The slug of a single app is `org_slug`, or empty.
    pub(crate) fn apps(&self) -> BTreeMap<String, Settings> {
        if self.organizations.is_empty() {
            let slug = self.org_slug.clone().unwrap_or_default();
            return BTreeMap::from([(slug, self.officernd.clone())]);
        }
        self.organizations.clone()
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

/// Reads the environment. Values are text: a secret of digits is a secret.
fn variables() -> Result<Variables, String> {
    let mut variables = Variables::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let path = match name.split_once('_') {
            // Of programs around the gateway.
            _ if matches!(name, "GATEWAY_CONFIG" | "OFFICERND_API_URL") => continue,
            _ if is_from_kubernetes(name) => continue,
            Some(("OFFICERND", "ORG_SLUG")) => "org_slug".to_owned(),
            Some(("OFFICERND", "SCOPE")) => "officernd.scopes".to_owned(),
            Some(("OFFICERND", key)) => format!("officernd.{}", key.to_ascii_lowercase()),
            Some(("GATEWAY", "OFFICERND" | "ORGANIZATIONS")) => {
                return Err(format!("{name}: is a table, which only a file can have"));
            }
            Some(("GATEWAY", key)) => key.to_ascii_lowercase(),
            _ => continue,
        };
        let Ok(value) = value.into_string() else {
            return Err(format!("{name}: is not UTF-8"));
        };
        if value.trim().is_empty() {
            let problem = "is set but empty; set it to a value or unset it";
            return Err(format!("{name}: {problem}"));
        }
        let number = matches!(path.as_str(), "connections" | "body_limit");
        let value = match value.parse() {
            Ok(integer) if number => Value::Integer(integer),
            _ => Value::String(value),
        };
        if let Some((other, before)) = variables.insert(path, (name.to_owned(), value.clone()))
            && before != value
        {
            let problem = "are both set and differ; keep one";
            return Err(format!("{name} and {other} {problem}"));
        }
    }
    Ok(variables)
}

/// Completes each `[organizations.SLUG]` with what `[officernd]` says for all.
fn share_with_organizations(table: &mut Table) -> Result<(), Mistake> {
    let shared = table.get("officernd").and_then(Value::as_table);
    let shared = shared.cloned().unwrap_or_default();
    let organizations = table.get_mut("organizations").and_then(Value::as_table_mut);
    let Some(organizations) = organizations.filter(|tables| !tables.is_empty()) else {
        return Ok(());
    };
    if let Some(key) = shared.keys().find(|key| key.starts_with("client_")) {
        let problem = "belongs into each [organizations.SLUG], as there are several";
        return Err((format!("officernd.{key}"), problem.to_owned()));
    }
    for (_, own) in organizations.iter_mut() {
        let Some(own) = own.as_table_mut() else {
            continue;
        };
        for (key, value) in &shared {
            own.entry(key).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}

/// Names the known setting that is nearest to an unknown one. serde says: unknown field `a`,
/// expected one of `b`, `c`.
fn with_nearest(problem: String, variable: Option<&str>) -> String {
    let mut names = problem.split('`').skip(1).step_by(2);
    let unknown = names
        .next()
        .filter(|_| problem.starts_with("unknown field"));
    let Some(unknown) = unknown else {
        return problem;
    };
    let nearest = names.min_by_key(|known| strsim::damerau_levenshtein(unknown, known));
    let nearest = nearest.unwrap_or_default();
    let nearest = match variable.and_then(|name| name.split_once('_')) {
        Some((prefix, _)) => format!("{prefix}_{}", nearest.to_uppercase()),
        None => nearest.to_owned(),
    };
    format!("is not a setting; did you mean {nearest}?")
}

/// Kubernetes makes these for a Service called `gateway` or `officernd`, as in `GATEWAY_PORT`,
/// `GATEWAY_PORT_8080_TCP_ADDR` and `OFFICERND_SERVICE_HOST`.
fn is_from_kubernetes(name: &str) -> bool {
    let name = format!("{name}_");
    name.contains("_PORT_") || name.contains("_SERVICE_")
}

fn is_slug(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(valid)
}

/// An address of the API: this machine's only.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path)),
                false => Err(format!("{text} is not unix: and an absolute path")),
            };
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("{text} is neither an address with a port nor unix:/path"))?;
        match address.ip().to_string().as_str() {
            "127.0.0.1" | "::1" => Ok(Self::Tcp(address)),
            _ => Err(format!(
                "{text} is not a loopback address that callers name (127.0.0.1 or [::1]): any \
                 program that reaches the gateway has the API. Run one beside each program instead"
            )),
        }
    }
}

/// An origin and no more: a path would be dropped, and a pattern names no host.
fn origin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_origin = |uri: &Uri| {
        let local = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let scheme = uri.scheme_str();
        let safe = scheme == Some("https") || (scheme == Some("http") && local);
        safe && uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '*'])
    };
    let uri = text.parse().ok().filter(is_origin);
    let problem = "is not https://host, or http:// to this machine, and nothing after it";
    uri.ok_or_else(|| D::Error::custom(problem))
}

/// "250ms", "10s", "5m"; more than nothing, at most a day.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration: Duration = humantime_serde::deserialize(deserializer)
        .map_err(|_| D::Error::custom("is not a time such as \"250ms\", \"10s\", \"5m\""))?;
    match duration {
        Duration::ZERO => Err(D::Error::custom("is zero")),
        duration if duration > Duration::from_secs(24 * 60 * 60) => {
            Err(D::Error::custom("is over a day"))
        }
        duration => Ok(duration),
    }
}
