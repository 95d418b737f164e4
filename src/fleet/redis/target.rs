//! Where the servers are. Pure.

use std::fmt;

use ::redis::cluster::ClusterClient;
use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::ConfigError;

#[derive(Clone)]
pub(super) struct Target {
    pub(super) servers: Servers,
    pub(super) roots: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(super) enum Servers {
    One(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        group: String,
        /// User, password, database and TLS of the servers; the host is unknown.
        servers: ConnectionInfo,
    },
    Cluster(Vec<ConnectionInfo>),
}

impl Target {
    pub(super) fn server(url: &str) -> Result<Self, ConfigError> {
        parse(url).map(|info| Self::of(Servers::One(info)))
    }

    pub(super) fn sentinel<'a>(
        sentinels: impl IntoIterator<Item = &'a str>,
        servers: &str,
    ) -> Result<Self, ConfigError> {
        let sentinels = parse_all(sentinels)?;
        let servers = parse(servers)?;
        let group = host_of(&servers).0.to_owned();
        Ok(Self::of(Servers::Sentinel {
            sentinels,
            group,
            servers,
        }))
    }

    pub(super) fn cluster<'a>(
        nodes: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let nodes = parse_all(nodes)?;
        ClusterClient::new(nodes.clone()).map_err(|error| unusable(&error))?;
        Ok(Self::of(Servers::Cluster(nodes)))
    }

    pub(super) fn trusting(mut self, pem: Vec<u8>) -> Result<Self, ConfigError> {
        if !self.infos().into_iter().any(is_tls) {
            return Err(problem(
                "has root certificates, but a URL without TLS; write rediss://",
            ));
        }
        let mut roots = rustls::RootCertStore::empty();
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.is_ok_and(|certificate| roots.add(certificate).is_ok());
            if !added {
                return Err(problem(
                    "has root certificates that are no PEM certificates",
                ));
            }
            count += 1;
        }
        if count == 0 {
            return Err(problem(
                "has root certificates that are no PEM certificates",
            ));
        }
        self.roots = Some(pem);
        Ok(self)
    }

    /// All whose addresses are known.
    fn infos(&self) -> Vec<&ConnectionInfo> {
        match &self.servers {
            Servers::One(info) => vec![info],
            Servers::Sentinel {
                sentinels, servers, ..
            } => sentinels.iter().chain([servers]).collect(),
            Servers::Cluster(nodes) => nodes.iter().collect(),
        }
    }

    fn of(servers: Servers) -> Self {
        let roots = None;
        Self { servers, roots }
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let info = url
        .into_connection_info()
        .map_err(|error| unusable(&error))?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(problem(
            "has a URL with #insecure; trust its roots with root_certificates() instead",
        )),
        _ => Ok(info),
    }
}

fn parse_all<'a>(
    urls: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<ConnectionInfo>, ConfigError> {
    let infos: Vec<ConnectionInfo> = urls.into_iter().map(parse).collect::<Result<_, _>>()?;
    if infos.is_empty() {
        return Err(problem("has no URL"));
    }
    Ok(infos)
}

/// Of an error about a URL only its category is shown: the rest may quote it.
fn unusable(error: &RedisError) -> ConfigError {
    let category = error.category();
    problem(&format!(
        "has a URL that cannot be used ({category}); write \
         redis://user:password@host:port/db, or rediss:// for TLS"
    ))
}

fn problem(problem: &str) -> ConfigError {
    let problem = problem.to_owned();
    ConfigError::Store { problem }
}

pub(super) fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn host_of(info: &ConnectionInfo) -> (&str, u16) {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            (host, *port)
        }
        _ => ("(socket)", 0),
    }
}

/// Hosts and ports only, a group of sentinels' for a host: no user, no password.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for info in self.infos() {
            let (host, port) = host_of(info);
            let scheme = if is_tls(info) { "rediss" } else { "redis" };
            list.entry(&format_args!("{scheme}://{host}:{port}"));
        }
        list.finish()
    }
}
