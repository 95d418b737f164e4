//! The gateway's own settings, each valid by itself once it is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use officernd_auth::Secret;
use serde::{Deserialize, Deserializer};

use super::Mistakes;
use super::entries::Entries;
use crate::store::SharedStore;

/// `GATEWAY_LISTEN`, `GATEWAY_ADMIN`, ...: README.md lists them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Where callers reach the API.
    pub(crate) listen: Listen,
    /// Where probes, Prometheus and the page are; never the API.
    pub(crate) admin: SocketAddr,
    /// The API. `None` is OfficeRnD's.
    pub(crate) upstream: Option<Upstream>,
    /// The app for paths that name no organization.
    pub(crate) default_organization: Option<String>,
    /// Where gateways share tokens.
    pub(crate) store: Option<Store>,
    /// A file that holds `store`, for URLs with a password.
    pub(crate) store_file: Option<PathBuf>,
    /// PEM certificates to trust for `rediss://`, instead of the system's.
    pub(crate) store_ca_file: Option<PathBuf>,
    /// Connections to the API at once; more wait to be accepted.
    #[serde(deserialize_with = "connections")]
    pub(crate) connections: usize,
    /// Bytes of a request's body.
    pub(crate) body_limit: usize,
    /// For a request's head to arrive, and for the next request of an idle
    /// connection.
    #[serde(deserialize_with = "duration")]
    pub(crate) head_timeout: Duration,
    /// From a request's head to its answer's: the request's body and a wait for
    /// a token are included.
    #[serde(deserialize_with = "duration")]
    pub(crate) answer_timeout: Duration,
    /// For a body to stand still, in either direction.
    #[serde(deserialize_with = "duration")]
    pub(crate) body_timeout: Duration,
    /// For requests in flight after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub(crate) shutdown_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            upstream: None,
            default_organization: None,
            store: None,
            store_file: None,
            store_ca_file: None,
            connections: 1024,
            body_limit: 32 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(25),
        }
    }
}

impl Options {
    /// What no setting alone can be blamed for.
    pub(super) fn check_together(&self, entries: &Entries, mistakes: &mut Mistakes) {
        if let Listen::Tcp(listen) = self.listen
            && listen.port() == self.admin.port()
            && listen.port() != 0
        {
            let problem = format!("uses port {} too", listen.port());
            mistakes.add(entries.place("admin"), problem);
        }
    }

    /// Opens the store, if one is set. Does not connect yet.
    pub(super) fn open_store(&self) -> Result<Option<SharedStore>, String> {
        let url = match (&self.store, &self.store_file) {
            (Some(_), Some(_)) => return Err("store and store_file are both set".to_owned()),
            (None, None) => return Ok(None),
            (Some(store), None) => store.0.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                text.map_err(|error| format!("{}: {error}", file.display()))?
                    .trim()
                    .into()
            }
        };
        let roots = match &self.store_ca_file {
            Some(file) => {
                let pem = std::fs::read(file);
                Some(pem.map_err(|error| format!("{}: {error}", file.display()))?)
            }
            None => None,
        };
        SharedStore::open(url.expose(), roots).map(Some)
    }
}

/// An address of the API: this machine's only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `sun_path` has 108 bytes, and the socket is bound under a longer name first.
const MAX_SOCKET_PATH: usize = 90;

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(format!("{text} is not unix: and an absolute path"));
            }
            if path.as_os_str().len() > MAX_SOCKET_PATH {
                return Err(format!("the path is longer than {MAX_SOCKET_PATH} bytes"));
            }
            return Ok(Self::Unix(path));
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("{text} is neither an address with a port nor unix:/path"))?;
        let reachable = ["127.0.0.1", "::1"]
            .iter()
            .any(|own| address.ip().to_string() == *own);
        if !reachable {
            return Err(format!(
                "{text} is not a loopback address that callers name (127.0.0.1 or [::1]): any \
                 program that reaches the gateway has the API. Run one beside each program instead"
            ));
        }
        Ok(Self::Tcp(address))
    }
}

/// An origin and no more: a path would be dropped, and a pattern names no host.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Upstream(pub(super) Uri);

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

/// Where gateways share tokens: a URL that may hold a password.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Store(Secret);

impl From<String> for Store {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// "250ms", "10s", "5m"; more than nothing, at most a day.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a time such as \"10s\"")))?;
    let range = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
    if !range.contains(&duration) {
        let problem = format!("{text} is not between 1ms and 1day");
        return Err(serde::de::Error::custom(problem));
    }
    Ok(duration)
}

/// A process has no ports for more connections.
fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let count = usize::deserialize(deserializer)?;
    match count {
        1..=65_536 => Ok(count),
        _ => Err(serde::de::Error::custom("is not from 1 to 65536")),
    }
}
