//! Where the servers are, and the way to them.

use std::fmt;
use std::time::Duration;

use ::redis::cluster::ClusterClient;
use ::redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisError, RedisResult, TlsCertificates, TlsMode,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::connect::Connection;
use crate::error::ConfigError;

/// Whoever stands above gives up at 500 ms; nothing goes on for longer.
pub(super) const LIMIT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Target {
    servers: Servers,
    roots: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Servers {
    One(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        group: String,
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
        ClusterClient::new(nodes.clone()).map_err(|error| wrong(&error))?;
        Ok(Self::of(Servers::Cluster(nodes)))
    }

    pub(super) fn trusting(mut self, pem: Vec<u8>) -> Result<Self, ConfigError> {
        let Some(info) = self.infos().into_iter().find(|info| is_tls(info)).cloned() else {
            return Err(problem(
                "has root certificates, but a URL without TLS; write rediss://",
            ));
        };
        let roots = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        if !roots.is_ok_and(|roots| !roots.is_empty()) {
            return Err(problem(
                "has root certificates that are no PEM certificates",
            ));
        }
        self.roots = Some(pem);
        self.client(&info).map_err(|error| wrong(&error))?;
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

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: None,
            root_cert: self.roots.clone(),
        }
    }

    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT));
        install_cryptography();
        match &self.servers {
            Servers::One(info) => {
                let client = self.client(info)?;
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                connection.await.map(Connection::One)
            }
            Servers::Sentinel {
                sentinels,
                group,
                servers,
            } => {
                let node = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(servers.redis_settings().clone());
                let node = if is_tls(servers) {
                    node.set_tls_mode(TlsMode::Secure)
                } else {
                    node
                };
                let master = SentinelServerType::Master;
                let trusting = |info| Ok(self.client(info)?.get_connection_info().clone());
                let sentinels: RedisResult<Vec<_>> = sentinels.iter().map(trusting).collect();
                let mut sentinel = SentinelClient::build(sentinels?, group, Some(node), master)?;
                // Asked each time: the master may be another by now.
                let found = sentinel.async_get_client().await?;
                let client = self.client(found.get_connection_info())?;
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                connection.await.map(Connection::One)
            }
            Servers::Cluster(nodes) => {
                let mut builder = ClusterClient::builder(nodes.clone())
                    .connection_timeout(LIMIT)
                    .response_timeout(LIMIT)
                    .retries(2)
                    .max_retry_wait(100);
                if self.roots.is_some() {
                    builder = builder.certs(self.certificates());
                }
                let connection = builder.build()?.get_async_connection().await?;
                Ok(Connection::Cluster(connection))
            }
        }
    }

    fn client(&self, info: &ConnectionInfo) -> RedisResult<Client> {
        if is_tls(info) && self.roots.is_some() {
            Client::build_with_tls(info.clone(), self.certificates())
        } else {
            Client::open(info.clone())
        }
    }
}

/// The client would panic if it found none, or more than one to choose from.
fn install_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Who was quicker has installed one too.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let info = url.into_connection_info().map_err(|error| wrong(&error))?;
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
fn wrong(error: &RedisError) -> ConfigError {
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

fn is_tls(info: &ConnectionInfo) -> bool {
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
