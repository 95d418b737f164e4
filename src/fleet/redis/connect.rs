//! The way to the servers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    TlsCertificates, cmd,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::target::{Servers, Target, is_tls};

/// One address has this long; the caller's limit is for all of them.
const NODE_TIMEOUT: Duration = Duration::from_millis(800);

/// A connection, with what lives as long as it does.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: Connection,
    /// Set when the connection has ended, or has failed to answer.
    pub(super) lost: Arc<AtomicBool>,
    /// The task that reads and writes; ends with the last use of the connection.
    pub(super) _driver: Option<Arc<JoinSet<()>>>,
}

/// Connects to a target.
pub(super) struct Connector {
    target: Target,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            tls: OnceCell::new(),
        })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) async fn connect(self: &Arc<Self>) -> RedisResult<Connected> {
        match &self.target.servers {
            Servers::One(info) => self.open(info).await,
            Servers::Sentinel {
                sentinels,
                group,
                servers,
            } => self.open_master(sentinels, group, servers).await,
            Servers::Cluster(nodes) => self.open_cluster(nodes).await,
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
    ) -> RedisResult<Connected> {
        let mut asking = JoinSet::new();
        for sentinel in sentinels {
            let (this, sentinel) = (Arc::clone(self), sentinel.clone());
            let (group, servers) = (group.to_owned(), servers.clone());
            asking.spawn(async move {
                let (host, port) = this.ask_sentinel(&sentinel, &group).await?;
                let address = address(&servers, host, port);
                this.open(&servers.set_addr(address)).await
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
        let opened = self.open(sentinel).await?;
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(group);
        let mut connection = opened.connection;
        let master: Option<(String, u16)> = command.query_async(&mut connection).await?;
        master.ok_or_else(|| {
            let message = "the sentinel knows no group of this name";
            RedisError::from((ErrorKind::InvalidClientConfig, message))
        })
    }

    async fn open(&self, info: &ConnectionInfo) -> RedisResult<Connected> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                set_up(info, stream).await
            }
            ConnectionAddr::TcpTls { host, port, .. } => {
                let config = self.tls().await?;
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let tls = tokio_rustls::TlsConnector::from(config);
                set_up(info, tls.connect(name, stream).await?).await
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                set_up(info, tokio::net::UnixStream::connect(path).await?).await
            }
            _ => Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "an address of this kind cannot be used",
            ))),
        }
    }

    /// redis-rs connects to all nodes by itself, and waits for each.
    async fn open_cluster(&self, nodes: &[ConnectionInfo]) -> RedisResult<Connected> {
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
        let connection = builder.build()?.get_async_connection().await?;
        Ok(Connected {
            connection: Connection::Cluster(connection),
            lost,
            _driver: None,
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
async fn set_up<S>(info: &ConnectionInfo, stream: S) -> RedisResult<Connected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = info.redis_settings().clone();
    let settings = settings.set_skip_set_lib_name();
    let lost = Arc::new(AtomicBool::new(false));
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&settings, stream, config);
    let (connection, driver) = made.await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    Ok(Connected {
        connection: Connection::One(connection),
        lost,
        _driver: Some(Arc::new(tasks)),
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

fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}
