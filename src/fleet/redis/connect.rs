//! The way to the servers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError,
    RedisResult, TlsCertificates, cmd,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::bell::Bell;
use super::connection::Connection;
use super::target::{Servers, Target, is_tls};

/// One address has this long; the caller's limit is for all of them.
const NODE_TIMEOUT: Duration = Duration::from_millis(800);

/// A connection, with what lives as long as it does.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) bell: Option<Arc<Bell>>,
    /// Set when the connection has ended, or has failed to answer.
    pub(super) lost: Arc<AtomicBool>,
    /// The task that reads and writes; ends with the last use of the connection.
    pub(super) driver: Option<Arc<JoinSet<()>>>,
}

/// Connects to a target.
pub(super) struct Connector {
    target: Target,
    tls: OnceCell<Arc<ClientConfig>>,
    /// The servers know no RESP3, or the user may not say HELLO.
    resp2: AtomicBool,
}

impl Connector {
    pub(super) fn new(target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            tls: OnceCell::new(),
            resp2: AtomicBool::new(false),
        })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) async fn connect(self: &Arc<Self>) -> RedisResult<Connected> {
        if self.resp2.load(Ordering::Relaxed) {
            return self.connect_with(ProtocolVersion::RESP2).await;
        }
        match self.connect_with(ProtocolVersion::RESP3).await {
            Err(error) if is_without_resp3(&error) => {
                self.resp2.store(true, Ordering::Relaxed);
                self.connect_with(ProtocolVersion::RESP2).await
            }
            connected => connected,
        }
    }

    async fn connect_with(self: &Arc<Self>, protocol: ProtocolVersion) -> RedisResult<Connected> {
        match &self.target.servers {
            Servers::One(info) => self.open(info, protocol).await,
            Servers::Sentinel {
                sentinels,
                group,
                servers,
            } => self.open_master(sentinels, group, servers, protocol).await,
            Servers::Cluster(nodes) => self.open_cluster(nodes, protocol).await,
        }
    }

    /// Asks all sentinels at once and connects to the master that the first
    /// usable answer names. A stale answer names a replica: its `READONLY`
    /// makes the caller connect again.
    async fn open_master(
        self: &Arc<Self>,
        sentinels: &[ConnectionInfo],
        group: &str,
        servers: &ConnectionInfo,
        protocol: ProtocolVersion,
    ) -> RedisResult<Connected> {
        let mut asking = JoinSet::new();
        for sentinel in sentinels {
            let (this, sentinel) = (Arc::clone(self), sentinel.clone());
            let (group, servers) = (group.to_owned(), servers.clone());
            asking.spawn(async move {
                let (host, port) = this.ask_sentinel(&sentinel, &group).await?;
                let address = address(&servers, host, port);
                this.open(&servers.set_addr(address), protocol).await
            });
        }
        let mut failure = timed_out();
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    async fn ask_sentinel(
        &self,
        sentinel: &ConnectionInfo,
        group: &str,
    ) -> RedisResult<(String, u16)> {
        let opened = self.open(sentinel, ProtocolVersion::RESP2).await?;
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(group);
        let mut connection = opened.connection;
        let master: Option<(String, u16)> = command.query_async(&mut connection).await?;
        master.ok_or_else(|| {
            let message = "the sentinel knows no group of this name";
            RedisError::from((ErrorKind::InvalidClientConfig, message))
        })
    }

    async fn open(
        &self,
        info: &ConnectionInfo,
        protocol: ProtocolVersion,
    ) -> RedisResult<Connected> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                set_up(info, protocol, stream).await
            }
            ConnectionAddr::TcpTls { host, port, .. } => {
                let config = self.tls().await?;
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let tls = tokio_rustls::TlsConnector::from(config);
                set_up(info, protocol, tls.connect(name, stream).await?).await
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                set_up(info, protocol, tokio::net::UnixStream::connect(path).await?).await
            }
            _ => Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "an address of this kind cannot be used",
            ))),
        }
    }

    /// redis-rs connects to all nodes by itself, and waits for each.
    async fn open_cluster(
        &self,
        nodes: &[ConnectionInfo],
        protocol: ProtocolVersion,
    ) -> RedisResult<Connected> {
        if nodes.iter().any(is_tls) && CryptoProvider::get_default().is_none() {
            return Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "a cluster over TLS needs rustls's process-wide CryptoProvider; install one",
            )));
        }
        let mut builder = ClusterClient::builder(nodes.to_vec())
            .connection_timeout(NODE_TIMEOUT)
            .response_timeout(NODE_TIMEOUT)
            .overall_response_timeout(None)
            .use_protocol(protocol)
            .retries(2)
            .min_retry_wait(20)
            .max_retry_wait(50);
        if self.target.roots.is_some() {
            builder = builder.certs(TlsCertificates {
                client_tls: None,
                root_cert: self.target.roots.clone(),
            });
        }
        let lost = Arc::new(AtomicBool::new(false));
        let bell =
            (protocol == ProtocolVersion::RESP3).then(|| Arc::new(Bell::new(Arc::clone(&lost))));
        if let Some(bell) = bell.clone() {
            builder = builder.push_sender(bell);
        }
        let connection = builder.build()?.get_async_connection().await?;
        Ok(Connected {
            connection: Connection::Cluster(connection),
            bell,
            lost,
            driver: None,
        })
    }

    /// Made once: reading the system's roots takes milliseconds.
    async fn tls(&self) -> io::Result<Arc<ClientConfig>> {
        let pem = self.target.roots.clone();
        let made = self.tls.get_or_try_init(|| async {
            let made = tokio::task::spawn_blocking(move || tls_config(pem.as_deref())).await;
            made.map_err(io::Error::other)?
        });
        made.await.cloned()
    }
}

/// Says HELLO or AUTH, and drives the connection in a task of its own.
async fn set_up<S>(
    info: &ConnectionInfo,
    protocol: ProtocolVersion,
    stream: S,
) -> RedisResult<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = info.redis_settings().clone();
    let settings = settings.set_protocol(protocol).set_skip_set_lib_name();
    let lost = Arc::new(AtomicBool::new(false));
    let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
    let bell = (protocol == ProtocolVersion::RESP3).then(|| Arc::new(Bell::new(Arc::clone(&lost))));
    if let Some(bell) = bell.clone() {
        config = config.set_push_sender(bell);
    }
    let made = MultiplexedConnection::new_with_config(&settings, stream, config);
    let (connection, driver) = made.await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    Ok(Connected {
        connection: Connection::One(connection),
        bell,
        lost,
        driver: Some(Arc::new(tasks)),
    })
}

/// TLS with the process's provider of cryptography, or aws-lc-rs; installs none.
fn tls_config(pem: Option<&[u8]>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            let certificates = CertificateDer::pem_slice_iter(pem).flatten();
            roots.add_parsable_certificates(certificates);
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn address(servers: &ConnectionInfo, host: String, port: u16) -> ConnectionAddr {
    match servers.addr() {
        ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: None,
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// HELLO is unknown (`ERR`) or forbidden (`NOPERM`).
fn is_without_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported || matches!(error.code(), Some("ERR" | "NOPERM"))
}

fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}
