//! The store for a fleet: Redis or Valkey.

mod connect;
mod connection;
mod link;
mod operations;
mod script;
mod target;

use std::fmt;
use std::sync::Arc;

use ::redis::aio::ConnectionLike;

use self::connect::Connector;
use self::connection::Connection;
use self::link::Link;
use self::script::Script;
use self::target::Target;
use super::store::Name;
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
/// Keys under its prefix, and:
///
/// ```text
/// ACL SETUSER app on >hunter2 ~officernd:* resetchannels -@all +select +evalsha +eval +time +get
///   +set +del +strlen +pttl +pexpire +zadd +zrem +zcount +zscore +zrangebyscore +zremrangebyscore
/// ```
///
/// On a cluster also `+cluster|slots +asking`. The user of a sentinel needs
/// `+sentinel|get-master-addr-by-name`.
///
/// Keys are `officernd:{<endpoint>}:<token>:entry`, `:lease`, and
/// `officernd:{<endpoint>}:window`: the braces keep those of one token endpoint
/// on one node. Each ends by itself. A key of another type is deleted.
///
/// # What a loss costs
///
/// - *Eviction:* a server that may evict keys forgets leases and windows first.
///   Use `maxmemory-policy noeviction` or a server of its own.
/// - *Failover:* writes that were not replicated are lost: at most a lease and
///   the window, so up to one allowance more, once.
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
    /// cluster, another way of TLS. It has to reconnect by itself.
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
        Self::with(Link::Own(connection))
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
        Self::with(Link::new(Connector::new(target)))
    }

    fn with(link: Link) -> Self {
        Self {
            shared: Arc::new(Shared {
                link,
                claim: Script::new(script::CLAIM),
                finish: Script::new(script::FINISH),
            }),
            prefix: PREFIX.into(),
        }
    }

    fn keys(&self, key: &Name, window: &Name) -> [String; 3] {
        let prefix = &self.prefix;
        [
            format!("{prefix}{{{window}}}:{key}:entry"),
            format!("{prefix}{{{window}}}:{key}:lease"),
            format!("{prefix}{{{window}}}:window"),
        ]
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
