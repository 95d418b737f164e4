//! The store for a fleet: Redis or Valkey.

mod bell;
mod connect;
mod connection;
mod eviction;
mod link;
mod operations;
mod script;
mod subscription;
mod target;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::redis::aio::ConnectionLike;

use self::connect::Connector;
use self::connection::Connection;
use self::link::Link;
use self::script::Script;
use self::target::Target;
use super::name::StoreKey;
use crate::error::ConfigError;

/// What keys begin with by default. ACLs depend on it.
const PREFIX: &str = "officernd:";

/// A [`TokenStore`](crate::fleet::TokenStore) in Redis (6 or newer) or Valkey.
///
/// Each operation is one Lua script on the server's own clock: it happens whole
/// or not at all, and no pod's clock matters. Connects when it is first used,
/// and again by itself. Clones share the connection. Use TLS (`rediss://`)
/// unless the network is your own: entries are sealed, but a password on the
/// way is not.
///
/// ```
/// use officernd_auth::fleet::RedisStore;
///
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// let store = RedisStore::new("redis://app:hunter2@redis.internal:6379/0")?;
/// assert!(!format!("{store:?}").contains("hunter2"));
/// # Ok(())
/// # }
/// ```
///
/// # Rights
///
/// Keys and channels under its prefix, and:
///
/// ```text
/// ACL SETUSER app on >hunter2 ~officernd:* resetchannels &officernd:* -@all +hello +select
///   +evalsha +eval +time +get +set +del +strlen +pttl +pexpire +zadd +zrem +zcount +zscore
///   +zrangebyscore +zremrangebyscore +subscribe +unsubscribe +publish +info
/// ```
///
/// On a cluster also `+cluster|slots +readonly +asking +ssubscribe +sunsubscribe
/// +spublish`. The user of a sentinel needs `+sentinel|get-master-addr-by-name`.
/// Without channels, `HELLO` or RESP3 the store polls, every 50 to 200 ms,
/// doubling to 2 s. Without `INFO` the eviction policy is not checked.
///
/// Keys are `officernd:{<endpoint>}:<token>:entry`, `:lease`, and
/// `officernd:{<endpoint>}:window`: the braces keep those of one token endpoint
/// on one node. Each ends by itself. A key of another type is deleted.
///
/// # What a loss costs
///
/// - *Eviction:* a server that may evict keys forgets leases and windows first.
///   Use `maxmemory-policy noeviction` or a server of its own. A process that
///   fetches checks the policy once and logs a warning.
/// - *Failover:* writes that were not replicated are lost: at most a lease and
///   the window, so up to one window of requests more, once.
/// - *A restart without data:* the same, and one token request for each token.
///
/// Set `maxclients`, `tcp-backlog` and the kernel's `somaxconn` above the
/// number of pods: each has one connection.
///
/// # TLS
///
/// `rediss://` trusts the system's roots, or those of
/// [`root_certificates`](Self::root_certificates). Uses rustls's process-wide
/// provider of cryptography if one is installed, otherwise aws-lc-rs; installs
/// none. (A cluster over TLS needs an installed one.) Verification cannot be
/// switched off.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
    prefix: Arc<str>,
}

struct Shared {
    link: Link,
    claim: Script,
    finish: Script,
    /// How the finish script publishes.
    publish: &'static str,
    policy_checked: AtomicBool,
}

impl RedisStore {
    /// One server: `redis://user:password@host:port/db`, or `rediss://` for
    /// TLS. All parts but the host may be left out. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] for a URL that cannot be used. It does not show
    /// the URL.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::to(Target::server(url)?))
    }

    /// The servers behind these sentinels, which are asked all at once. The
    /// second URL is that of the servers, with the name of their group as host.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use officernd_auth::fleet::RedisStore;
    ///
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let sentinels = ["redis://sentinel-1:26379", "redis://sentinel-2:26379"];
    /// let store = RedisStore::sentinel(sentinels, "redis://app:hunter2@mymaster/0")?;
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sentinel<'a>(
        sentinels: impl IntoIterator<Item = &'a str>,
        servers: &str,
    ) -> Result<Self, ConfigError> {
        Ok(Self::to(Target::sentinel(sentinels, servers)?))
    }

    /// A cluster, of which some nodes are known. All have one user, password
    /// and way of TLS.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use officernd_auth::fleet::RedisStore;
    ///
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let store = RedisStore::cluster(["redis://node-1:6379", "redis://node-2:6379"])?;
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cluster<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        Ok(Self::to(Target::cluster(nodes)?))
    }

    /// A connection of your own: a `ConnectionManager`, a pool, Sentinel or a
    /// cluster, another way of TLS. It has to reconnect by itself. The store
    /// polls over it, every 50 to 200 ms, doubling to 2 s.
    ///
    /// ```no_run
    /// use officernd_auth::fleet::RedisStore;
    ///
    /// # async fn connect() -> redis::RedisResult<()> {
    /// let client = redis::Client::open("redis://redis.internal")?;
    /// let connection = client.get_multiplexed_async_connection().await?;
    /// let store = RedisStore::over(connection);
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn over(connection: impl ConnectionLike + Clone + Send + Sync + 'static) -> Self {
        let connection = Connection::Own(Box::new(connection));
        Self::with(Link::Own(connection), "PUBLISH SPUBLISH")
    }

    /// Begins keys with `prefix`: at most 128 printable ASCII characters
    /// without braces and white space.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] for others.
    pub fn key_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        let is_sound = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
        if prefix.len() > 128 || !prefix.bytes().all(is_sound) {
            return Err(ConfigError::Store {
                problem: "has a key prefix with characters other than printable ASCII, with \
                          braces or white space, or with more than 128 of them"
                    .to_owned(),
            });
        }
        self.prefix = prefix.into();
        Ok(self)
    }

    /// Trusts these roots (PEM) in place of the system's, on servers and
    /// sentinels.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] if they cannot be read, or no URL is one of TLS.
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let Some(connector) = self.shared.link.connector() else {
            return Err(ConfigError::Store {
                problem: "has root certificates, but a connection of your own".to_owned(),
            });
        };
        let target = connector.target().clone().trusting(pem.into())?;
        Ok(Self {
            prefix: self.prefix,
            ..Self::to(target)
        })
    }

    fn to(target: Target) -> Self {
        let publish = match target.is_cluster() {
            true => "SPUBLISH",
            false => "PUBLISH",
        };
        Self::with(Link::new(Connector::new(target)), publish)
    }

    fn with(link: Link, publish: &'static str) -> Self {
        Self {
            shared: Arc::new(Shared {
                link,
                claim: Script::new(script::CLAIM),
                finish: Script::new(script::FINISH),
                publish,
                policy_checked: AtomicBool::new(false),
            }),
            prefix: PREFIX.into(),
        }
    }

    fn keys(&self, key: &StoreKey, window: &StoreKey) -> [String; 3] {
        let prefix = &self.prefix;
        [
            format!("{prefix}{{{window}}}:{key}:entry"),
            format!("{prefix}{{{window}}}:{key}:lease"),
            format!("{prefix}{{{window}}}:window"),
        ]
    }

    fn channel(&self, key: &StoreKey, window: &StoreKey) -> String {
        format!("{}{{{window}}}:{key}:changed", self.prefix)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.shared.link.connector().map(|it| it.target());
        f.debug_struct("RedisStore")
            .field("servers", &servers)
            .field("key_prefix", &self.prefix)
            .finish()
    }
}
