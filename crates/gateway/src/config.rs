//! The configuration: one struct, from a TOML file under environment variables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use officernd_auth::Settings;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::{Table, Value};

/// What names the app of an organization.
const CREDENTIALS: [&str; 4] = [
    "client_id",
    "client_id_file",
    "client_secret",
    "client_secret_file",
];

/// README.md lists the settings. `Settings` and the paths of files hold secrets: there is no `Debug`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where callers reach the API.
    pub(crate) listen: Listen,
    /// Where probes, Prometheus and the page are; never the API.
    pub(crate) admin: SocketAddr,
    /// The API.
    pub(crate) upstream: Upstream,
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
            upstream: Upstream(Uri::from_static("https://app.officernd.com")),
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

/// The settings of the file and the environment as one table, and where each was written.
#[derive(Default)]
struct Sources {
    file: Option<PathBuf>,
    table: Table,
    /// The variables that were read.
    variables: BTreeSet<String>,
}

impl Config {
    /// Reads the file, if one is named here or by `GATEWAY_CONFIG`, and the environment.
    ///
    /// # Errors
    ///
    /// Says where the first mistake is, and shows no value that may be a secret.
    pub(crate) fn read(file: Option<PathBuf>) -> Result<Self, String> {
        let file = file.or_else(|| std::env::var_os("GATEWAY_CONFIG").map(PathBuf::from));
        let mut sources = Sources::default();
        if let Some(path) = file {
            sources.table = read_file(&path)?;
            sources.file = Some(path);
        }
        sources.read_environment()?;
        sources.share_with_organizations()?;
        let table = Value::Table(sources.table.clone());
        let config: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let path = error.path().to_string();
            let problem = error.into_inner().message().to_owned();
            sources.problem(&path, &problem)
        })?;
        config.check(&sources)
    }

    /// Checks what no setting says alone, and sets what the gateway decides.
    fn check(mut self, sources: &Sources) -> Result<Self, String> {
        if let Listen::Tcp(listen) = self.listen
            && listen.port() == self.admin.port()
            && listen.port() != 0
        {
            let problem = format!("uses port {} too", listen.port());
            return Err(sources.problem("admin", &problem));
        }
        let slugs = self
            .organizations
            .keys()
            .map(|slug| ("organizations", slug));
        let own = self.org_slug.iter().map(|slug| ("org_slug", slug));
        if let Some((path, slug)) = slugs.chain(own).find(|(_, slug)| !is_slug(slug)) {
            let problem = format!("{slug:?} is no slug: letters, digits, '-' and '_', at most 63");
            return Err(sources.problem(path, &problem));
        }
        if let Some(default) = &self.default_organization
            && !self.organizations.contains_key(default)
        {
            let problem = format!("[organizations.{default}] is missing");
            return Err(sources.problem("default_organization", &problem));
        }
        let upstream = self.upstream.0.to_string();
        for settings in self.organizations.values_mut().chain([&mut self.officernd]) {
            settings.allow_origins.push(upstream.clone());
            // A gateway replaces its callers' credentials.
            settings.if_not_present = false;
        }
        Ok(self)
    }

    /// Whether no app is configured at all.
    pub(crate) fn has_no_credentials(&self) -> bool {
        let settings = &self.officernd;
        let id = settings.client_id.is_some() || settings.client_id_file.is_some();
        let secret = settings.client_secret.is_some() || settings.client_secret_file.is_some();
        self.organizations.is_empty() && !id && !secret
    }

    /// The API's origin, as in the log.
    pub(crate) fn upstream_text(&self) -> String {
        self.upstream.0.to_string().trim_end_matches('/').to_owned()
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
    text.parse().map_err(|error: toml::de::Error| {
        // Not its `Display`, which quotes the line: that may hold a secret.
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.unwrap_or_default().matches('\n').count() + 1;
        format!("{shown}, line {line}: {}", error.message())
    })
}

impl Sources {
    /// Lays the variables over the file. They are text: a secret of digits is a secret.
    fn read_environment(&mut self) -> Result<(), String> {
        let mut officernd = Table::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| !is_from_kubernetes(name)) else {
                continue;
            };
            let own = name.strip_prefix("GATEWAY_");
            let library = name.strip_prefix("OFFICERND_");
            let (Some(key), false) = (own.or(library), is_no_setting(name)) else {
                continue;
            };
            let key = key.to_ascii_lowercase();
            let Ok(value) = value.into_string() else {
                return Err(format!("{name}: is not UTF-8"));
            };
            if value.trim().is_empty() {
                let problem = "is set but empty; set it to a value or unset it";
                return Err(format!("{name}: {problem}"));
            }
            self.variables.insert(name.to_owned());
            match key.as_str() {
                "officernd" | "organizations" => {
                    return Err(format!("{name}: is a table, which only a file can have"));
                }
                "connections" | "body_limit" if own.is_some() => {
                    let number = value.parse().map_or(Value::String(value), Value::Integer);
                    self.table.insert(key, number);
                }
                "org_slug" => drop(self.table.insert(key, value.into())),
                _ if own.is_some() => drop(self.table.insert(key, value.into())),
                _ => drop(officernd.insert(key, value.into())),
            }
        }
        rename_scope(&mut officernd);
        let table = self
            .table
            .entry("officernd")
            .or_insert_with(|| Table::new().into());
        if let Value::Table(table) = table {
            rename_scope(table);
            table.extend(officernd);
        }
        Ok(())
    }

    /// Completes each `[organizations.SLUG]` with what `[officernd]` says for all.
    fn share_with_organizations(&mut self) -> Result<(), String> {
        let shared = self
            .table
            .get("officernd")
            .and_then(Value::as_table)
            .cloned();
        let shared = shared.unwrap_or_default();
        let Some(Value::Table(organizations)) = self.table.get_mut("organizations") else {
            return Ok(());
        };
        for own in organizations
            .iter_mut()
            .filter_map(|(_, own)| own.as_table_mut())
        {
            rename_scope(own);
            for (key, value) in &shared {
                own.entry(key).or_insert_with(|| value.clone());
            }
        }
        let credential = CREDENTIALS.iter().find(|key| shared.contains_key(**key));
        match credential.filter(|_| !organizations.is_empty()) {
            None => Ok(()),
            Some(key) => {
                let problem = "belongs into each [organizations.SLUG], as there are several";
                Err(self.problem(&format!("officernd.{key}"), problem))
            }
        }
    }

    /// Names the place of a mistake: the variable, or the key in the file.
    fn problem(&self, path: &str, problem: &str) -> String {
        let variable = variable(path);
        let is_variable = variable
            .as_ref()
            .filter(|name| self.variables.contains(*name));
        let place = match (is_variable, &self.file) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => format!("{}: {path}", file.display()),
            (None, None) => variable.clone().unwrap_or_else(|| path.to_owned()),
        };
        // serde says: unknown field `a`, expected one of `b`, `c`.
        let mut names = problem.split('`').skip(1).step_by(2);
        match (problem.strip_prefix("unknown field"), names.next()) {
            (Some(_), Some(unknown)) => {
                let near = names.min_by_key(|known| strsim::damerau_levenshtein(unknown, known));
                let near = near.map(|near| match (is_variable, path.rsplit_once('.')) {
                    (None, _) => near.to_owned(),
                    (Some(_), None) => format!("GATEWAY_{}", near.to_uppercase()),
                    (Some(_), Some(_)) => format!("OFFICERND_{}", near.to_uppercase()),
                });
                let near = near.unwrap_or_default();
                format!("{place}: is not a setting; did you mean {near}?")
            }
            _ => format!("{place}: {problem}"),
        }
    }
}

/// The variable of a setting, if it has one.
fn variable(path: &str) -> Option<String> {
    match path.split_once('.') {
        None if path == "org_slug" => Some("OFFICERND_ORG_SLUG".to_owned()),
        None => Some(format!("GATEWAY_{}", path.to_uppercase())),
        Some(("officernd", key)) => Some(format!("OFFICERND_{}", key.to_uppercase())),
        Some(_) => None,
    }
}

/// Of programs around the gateway.
fn is_no_setting(name: &str) -> bool {
    matches!(name, "GATEWAY_CONFIG" | "OFFICERND_API_URL")
}

/// Kubernetes makes these for a Service called `gateway` or `officernd`, as in `GATEWAY_PORT`,
/// `GATEWAY_PORT_8080_TCP_ADDR` and `OFFICERND_SERVICE_HOST`.
fn is_from_kubernetes(name: &str) -> bool {
    let name = format!("{name}_");
    name.contains("_PORT_") || name.contains("_SERVICE_")
}

/// `scope` is another name of `scopes`, which tables that lie over each other must share.
fn rename_scope(table: &mut Table) {
    if !table.contains_key("scopes")
        && let Some(scope) = table.remove("scope")
    {
        table.insert("scopes".to_owned(), scope);
    }
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
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Upstream(pub(crate) Uri);

impl TryFrom<String> for Upstream {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = |uri: &Uri| {
            let host = uri.host().unwrap_or_default();
            let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
            let safe = match uri.scheme_str() {
                Some("http") => local,
                scheme => scheme == Some("https"),
            };
            let whole = uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '*']);
            safe && whole
        };
        let uri = text.parse().ok().filter(valid).map(Self);
        uri.ok_or("is not https://host, or http:// to this machine, and nothing after it")
    }
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
