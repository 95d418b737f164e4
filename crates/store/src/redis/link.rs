//! The connection of a store to Redis.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::aio::ConnectionLike;
use ::redis::cluster::ClusterClient;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    FromRedisValue as _, IntoConnectionInfo as _, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, TlsCertificates, ToRedisArgs, Value, cmd,
};
use officernd_auth::clock::{Clock as _, TokioClock};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::script::Script;
use crate::clock::{later, timeout_at};
use crate::error::ConfigError;

/// The time limit for connecting, from the start of an operation. TCP resends a lost SYN after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// The time limits of an operation, and of its second attempt over a new connection.
const OPERATION_TIMEOUTS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
/// The time limit for one node of a cluster. redis-rs tries the nodes in turn.
const NODE_TIMEOUT: Duration = Duration::from_millis(800);
/// A connection that was idle for longer is replaced: a firewall may have dropped it silently, and connecting
/// takes milliseconds.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// The addresses of the servers.
#[derive(Clone)]
pub(super) enum Server {
    One(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        /// User, password, database and TLS settings of the servers. The host is the name of their group.
        servers: ConnectionInfo,
    },
    Cluster(Vec<ConnectionInfo>),
    /// The user's own connection, which reconnects by itself.
    Own(Connection),
}

/// Sends a command over a connection whose type is erased.
pub(super) type Connection = Arc<dyn Fn(Cmd) -> RedisFuture<'static, Value> + Send + Sync>;

pub(super) fn erased(
    connection: impl ConnectionLike + Clone + Send + Sync + 'static,
) -> Connection {
    Arc::new(move |command| {
        let mut connection = connection.clone();
        Box::pin(async move { command.query_async(&mut connection).await })
    })
}

/// The one connection of a store. Connects when needed, and again after an operation without a reply.
pub(super) struct Link {
    pub(super) server: Server,
    roots: Option<Vec<u8>>,
    /// Locked while connecting, so that concurrent operations make one connection.
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    connection: Option<Connection>,
    used_at: Option<Instant>,
    /// The number of the connection, so that a late operation drops only its own connection.
    number: u64,
}

impl Link {
    pub(super) fn new(server: Server, roots: Option<Vec<u8>>) -> Self {
        let live = Mutex::default();
        Self {
            server,
            roots,
            live,
        }
    }

    /// Runs a script within 500 ms. Without a reply, or if the server is no longer a master, runs it once more
    /// over a new connection, within 1 s.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String; 3],
        args: impl ToRedisArgs + Copy + Send + Sync,
    ) -> RedisResult<Value> {
        let connected_by = later(TokioClock.now(), CONNECT_TIMEOUT);
        let mut failure = timed_out();
        for limit in OPERATION_TIMEOUTS {
            let connected = timeout_at(&TokioClock, connected_by, self.connection()).await;
            let (connection, number) = connected.ok_or_else(timed_out)??;
            let until = later(TokioClock.now(), limit);
            let running = script.run(&connection, keys, args);
            match timeout_at(&TokioClock, until, running).await {
                Some(Err(error)) if !is_reply(&error) => failure = error,
                Some(reply) => return reply,
                None => failure = timed_out(),
            }
            self.forget(number).await;
        }
        Err(failure)
    }

    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        let mut live = self.live.lock().await;
        let now = TokioClock.now();
        let used_at = live.used_at.replace(now);
        let idle = used_at.map(|used_at| now.saturating_duration_since(used_at));
        let fresh = idle.is_some_and(|idle| idle < MAX_IDLE);
        if let Some(connection) = live.connection.as_ref().filter(|_| fresh) {
            return Ok((connection.clone(), live.number));
        }
        live.connection = None;
        live.number += 1;
        // Boxed, because redis-rs's future takes kilobytes, which every operation would carry.
        let connection = Box::pin(self.server.connect(self.roots.as_deref())).await?;
        live.connection = Some(connection.clone());
        Ok((connection, live.number))
    }

    async fn forget(&self, number: u64) {
        let mut live = self.live.lock().await;
        if live.number == number {
            live.connection = None;
        }
    }
}

impl Server {
    /// Checks whether these roots (PEM) can be used with these servers.
    pub(super) fn check_roots(&self, pem: &[u8]) -> Result<(), ConfigError> {
        let has_certificate = CertificateDer::pem_slice_iter(pem).next().is_some();
        let client = Client::build_with_tls("rediss://host", certificates(pem));
        let problem = if matches!(self, Self::Own(_)) {
            "has root certificates, but uses your own connection"
        } else if !self.infos().any(is_tls) {
            "has root certificates, but a URL without TLS; write rediss://"
        } else if !has_certificate || client.is_err() {
            "has root certificates that are not valid PEM certificates"
        } else {
            return Ok(());
        };
        Err(ConfigError::new(problem))
    }

    /// Returns `true` if a URL has a password, or if the connection is the user's own.
    pub(super) fn has_password(&self) -> bool {
        let mut infos = self.infos();
        matches!(self, Self::Own(_)) || infos.any(|it| it.redis_settings().password().is_some())
    }

    async fn connect(&self, roots: Option<&[u8]>) -> RedisResult<Connection> {
        if self.infos().any(is_tls) && CryptoProvider::get_default().is_none() {
            // Fails if another thread has just installed one, which is fine too.
            let _ = aws_lc_rs::default_provider().install_default();
        }
        match self {
            Self::One(info) => open(info.clone(), roots).await,
            Self::Sentinel { sentinels, servers } => open_master(sentinels, servers, roots).await,
            Self::Cluster(nodes) => open_cluster(nodes, roots).await,
            Self::Own(connection) => Ok(connection.clone()),
        }
    }

    /// Returns the parsed URLs.
    fn infos(&self) -> impl Iterator<Item = &ConnectionInfo> {
        let (list, one) = match self {
            Self::One(info) => (&[][..], Some(info)),
            Self::Sentinel { sentinels, servers } => (&**sentinels, Some(servers)),
            Self::Cluster(nodes) => (&**nodes, None),
            Self::Own(_) => (&[][..], None),
        };
        list.iter().chain(one)
    }
}

async fn open(info: ConnectionInfo, roots: Option<&[u8]>) -> RedisResult<Connection> {
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings);
    let client = match roots.filter(|_| is_tls(&info)) {
        Some(pem) => Client::build_with_tls(info, certificates(pem))?,
        None => Client::open(info)?,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    Ok(erased(connection))
}

/// Queries all sentinels at once, and returns the first connection to a master. redis-rs queries one after the
/// other, so each sentinel that hangs would cost 1 s. An outdated reply may name a replica; then `READONLY`
/// makes the caller connect again.
async fn open_master(
    sentinels: &[ConnectionInfo],
    servers: &ConnectionInfo,
    roots: Option<&[u8]>,
) -> RedisResult<Connection> {
    let mut queries = JoinSet::new();
    for sentinel in sentinels {
        let (sentinel, servers) = (sentinel.clone(), servers.clone());
        let roots = roots.map(<[u8]>::to_vec);
        queries.spawn(async move {
            let roots = roots.as_deref();
            let connection = open(sentinel, roots).await?;
            let mut lookup = cmd("SENTINEL");
            lookup
                .arg("get-master-addr-by-name")
                .arg(host_of(&servers).0);
            let master = connection(lookup).await?;
            let master = <Option<(String, u16)>>::from_redis_value(master)?;
            let unknown = "the sentinel has no group of this name";
            let (host, port) = master.ok_or((ErrorKind::InvalidClientConfig, unknown))?;
            let address = match is_tls(&servers) {
                true => ConnectionAddr::TcpTls {
                    host,
                    port,
                    insecure: false,
                    tls_params: None,
                },
                false => ConnectionAddr::Tcp(host, port),
            };
            open(servers.set_addr(address), roots).await
        });
    }
    let mut failure = timed_out();
    while let Some(connected) = queries.join_next().await {
        match connected {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn open_cluster(nodes: &[ConnectionInfo], roots: Option<&[u8]>) -> RedisResult<Connection> {
    let mut builder = ClusterClient::builder(nodes.to_vec())
        .connection_timeout(NODE_TIMEOUT)
        .response_timeout(NODE_TIMEOUT)
        .overall_response_timeout(None)
        .retries(2)
        .min_retry_wait(20)
        .max_retry_wait(50);
    if let Some(pem) = roots {
        builder = builder.certs(certificates(pem));
    }
    Ok(erased(builder.build()?.get_async_connection().await?))
}

/// Returns `true` if the error is a reply of the server. `READONLY` does not count: the master is elsewhere.
fn is_reply(error: &RedisError) -> bool {
    let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
    error.kind() != read_only && error.code().is_some()
}

fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

fn certificates(pem: &[u8]) -> TlsCertificates {
    TlsCertificates {
        client_tls: None,
        root_cert: Some(pem.to_vec()),
    }
}

pub(super) fn parse(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let info = url
        .into_connection_info()
        .map_err(|error| unusable(&error))?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(ConfigError::new(
            "has a URL with #insecure; use root_certificates() instead",
        )),
        _ => Ok(info),
    }
}

pub(super) fn parse_all<'a>(
    urls: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<ConnectionInfo>, ConfigError> {
    let infos: Vec<ConnectionInfo> = urls.into_iter().map(parse).collect::<Result<_, _>>()?;
    match infos.is_empty() {
        true => Err(ConfigError::new("has no URL")),
        false => Ok(infos),
    }
}

/// Keeps only the category of an error about a URL: the rest may quote the URL.
pub(super) fn unusable(error: &RedisError) -> ConfigError {
    let category = error.category();
    ConfigError::new(format!(
        "has a URL that cannot be used ({category}); write \
         redis://user:password@host:port/db, or rediss:// for TLS"
    ))
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

/// Shows only hosts and ports, not users and passwords.
impl fmt::Debug for Server {
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
