//! The store in Redis or Valkey.

mod link;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::ConnectionLike;
use ::redis::cluster::ClusterClient;
use ::redis::{
    ErrorKind as Kind, FromRedisValue as _, RedisError, ServerErrorKind, ToRedisArgs, Value,
};
use officernd_auth::{Error, ErrorKind};

use self::link::{Link, Server, erased, parse, parse_all, unusable};
use self::script::{CLAIM, FINISH, Script};
use crate::error::ConfigError;
use crate::store::{
    Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore, millis, whole_millis,
};

/// The default prefix of keys. ACLs depend on it.
const PREFIX: &str = "officernd:";

/// A [`TokenStore`] in Redis (6 or newer) or Valkey.
///
/// Each operation is one atomic Lua script on the server's clock, so the clocks of the processes do not matter.
/// Connects at the first operation, and reconnects as needed. Clones share the connection. Use TLS (`rediss://`)
/// unless you trust the network: entries are sealed, but the password is sent in plain text.
///
/// ```
/// use officernd_auth_store::RedisStore;
///
/// # fn main() -> Result<(), officernd_auth_store::ConfigError> {
/// let store = RedisStore::new("redis://app:hunter2@redis.internal:6379/0")?;
/// assert!(!format!("{store:?}").contains("hunter2"));
///
/// let sentinels = ["redis://sentinel-1:26379", "redis://sentinel-2:26379"];
/// let store = RedisStore::sentinel(sentinels, "redis://app:hunter2@mymaster/0")?;
///
/// let store = RedisStore::cluster(["redis://node-1:6379", "redis://node-2:6379"])?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
///
/// # Time limits
///
/// The time limit of an operation is 500 ms. Without a reply, or if the server is no longer a master, the store
/// connects again and repeats the operation once, within 1 s. A connection must be made within 2.5 s of the
/// start. An operation that takes longer than 3 s in total fails.
///
/// # Keys and rights
///
/// Keys are `officernd:{<endpoint>}:<token>:entry`, `officernd:{<endpoint>}:<token>:lease`, and
/// `officernd:{<endpoint>}:window`. The braces keep the keys of one token endpoint on one cluster node. Each key
/// expires. A key of another type under these names puts the store out of use until it is deleted.
///
/// [The crate page](crate#rights-for-redis) lists the rights to grant. The cluster client also sends `PING` and
/// `CLIENT SETINFO`, but does not need the right to them.
///
/// Each process holds one connection: set `maxclients`, `tcp-backlog` and the kernel's `somaxconn` above the
/// number of processes.
///
/// # TLS
///
/// `rediss://` trusts the system's roots, or those of [`root_certificates`](Self::root_certificates).
/// Verification cannot be disabled. Uses the program's default crypto provider of rustls. If none is installed
/// when the store first connects, installs aws-lc-rs for the process.
///
/// The Redis client reads the system's roots each time it connects, even with roots of your own, and fails if
/// one of the files cannot be read: check `SSL_CERT_FILE` and `SSL_CERT_DIR`.
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    prefix: Arc<str>,
}

impl RedisStore {
    /// Makes a store on one server: `redis://user:password@host:port/db`, or `rediss://` for TLS. All parts
    /// except the host are optional; the port is 6379 and the database 0 by default. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid. The error does not show the URL.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::to(Server::One(parse(url)?), None))
    }

    /// Makes a store on the master that these sentinels report. Queries all of them at once. `servers` is the URL
    /// of the servers, with the name of their group as host. Each URL has its own user and password.
    ///
    /// # Errors
    ///
    /// Returns an error if a URL is invalid, or if there are no sentinels.
    pub fn sentinel<'a>(
        sentinels: impl IntoIterator<Item = &'a str>,
        servers: &str,
    ) -> Result<Self, ConfigError> {
        let server = Server::Sentinel {
            sentinels: parse_all(sentinels)?,
            servers: parse(servers)?,
        };
        Ok(Self::to(server, None))
    }

    /// Makes a store in a cluster. `nodes` are the URLs of some of its nodes, with the same user, password and TLS
    /// settings.
    ///
    /// # Errors
    ///
    /// Returns an error if a URL is invalid, if their settings differ, or if there are none.
    pub fn cluster<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let nodes = parse_all(nodes)?;
        ClusterClient::new(nodes.clone()).map_err(|error| unusable(&error))?;
        Ok(Self::to(Server::Cluster(nodes), None))
    }

    /// Makes a store over your own connection, such as a `ConnectionManager`, or one with client certificates. The
    /// connection must reconnect by itself.
    ///
    /// ```no_run
    /// use officernd_auth_store::RedisStore;
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
        Self::to(Server::Own(erased(connection)), None)
    }

    /// Sets the prefix of all keys: at most 128 printable ASCII characters, without braces and whitespace.
    /// Default: `officernd:`.
    ///
    /// # Errors
    ///
    /// Returns an error if the prefix is longer, or has other characters.
    pub fn key_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
        if prefix.len() > 128 || !prefix.bytes().all(is_valid) {
            return Err(ConfigError::new(
                "has an invalid key prefix; use at most 128 printable ASCII characters, without \
                 braces and whitespace",
            ));
        }
        self.prefix = prefix.into();
        Ok(self)
    }

    /// Trusts these roots (PEM) instead of the system's, for servers and sentinels.
    ///
    /// # Errors
    ///
    /// Returns an error if they are not valid PEM certificates, or if no URL is `rediss://`.
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let (server, pem) = (self.link.server.clone(), pem.into());
        server.check_roots(&pem)?;
        Ok(Self {
            prefix: self.prefix,
            ..Self::to(server, Some(pem))
        })
    }

    fn to(server: Server, roots: Option<Vec<u8>>) -> Self {
        Self {
            link: Arc::new(Link::new(server, roots)),
            prefix: PREFIX.into(),
        }
    }

    /// Runs a script on the keys of a token: entry, lease, window.
    async fn run(
        &self,
        script: &Script,
        (key, window): (&Name, &Name),
        args: impl ToRedisArgs + Copy + Send + Sync,
    ) -> Result<Value, Error> {
        let prefix = &self.prefix;
        let keys = [
            format!("{prefix}{{{window}}}:{key}:entry"),
            format!("{prefix}{{{window}}}:{key}:lease"),
            format!("{prefix}{{{window}}}:window"),
        ];
        let reply = self.link.run(script, &keys, args).await;
        reply.map_err(|error| failed(&error, self.link.server.has_password()))
    }
}

impl TokenStore for RedisStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let args = (
            claim.holder.as_str(),
            claim.seen.as_ref().map_or("", |seen| seen.as_str()),
            claim.may_fetch,
            millis(claim.limits.lease),
            claim.limits.requests.map_or(-1, i64::from),
            millis(claim.limits.per),
            MAX_ENTRY_SIZE,
        );
        let names = (&claim.key, &claim.window);
        let reply = self.run(&CLAIM, names, args).await?;
        claimed(reply).ok_or_else(unexpected)
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        let (sealed, life) = match &finish.entry {
            Some(entry) => (&*entry.sealed, entry.expires_in),
            None => (&[][..], Duration::ZERO),
        };
        let args = (
            finish.holder.as_str(),
            sealed,
            millis(life),
            whole_millis(finish.frees_after),
        );
        let names = (&finish.key, &finish.window);
        match self.run(&FINISH, names, args).await? {
            Value::Int(held @ 0..=1) => Ok(held == 1),
            _ => Err(unexpected()),
        }
    }
}

/// Parses the reply of the claim script; returns `None` for any other reply.
fn claimed(reply: Value) -> Option<Claimed> {
    let (word, millis, stored) = <(String, u64, Vec<u8>)>::from_redis_value(reply).ok()?;
    let time = Duration::from_millis(millis);
    Some(match &*word {
        "granted" => Claimed::Granted,
        "leased" => Claimed::Leased(time),
        "limited" => Claimed::RateLimited(time),
        "entry" => {
            let (id, sealed) = stored.split_at_checked(32)?;
            let id = Name::parse(std::str::from_utf8(id).ok()?)?;
            if sealed.len() > MAX_ENTRY_SIZE {
                return None;
            }
            Claimed::Entry(StoredEntry::new(id, sealed.to_vec(), time))
        }
        _ => return None,
    })
}

fn unexpected() -> Error {
    let message = "Redis sent an unexpected reply";
    Error::new(ErrorKind::Store, message)
}

/// Converts an error. Of an error reply, keeps only the code, such as `OOM` or `WRONGPASS`: the rest may quote
/// arguments. The source of a connection error comes from the system or from rustls.
fn failed(error: &RedisError, has_password: bool) -> Error {
    let is_code = |code: &&str| code.len() <= 32 && code.bytes().all(|it| it.is_ascii_uppercase());
    let message = match (error.kind(), error.code().filter(is_code)) {
        (Kind::Io, _) if error.is_timeout() => "Redis did not reply in time".to_owned(),
        (Kind::Io, _) if error.is_connection_refusal() => "Redis refuses connections".to_owned(),
        (Kind::Io, _) => "the connection to Redis failed".to_owned(),
        (Kind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            "Redis refuses the user or password".to_owned()
        }
        (Kind::Server(ServerErrorKind::ReadOnly), _) => "Redis is read-only".to_owned(),
        // Without a password, Redis refuses long commands with a plain ERR.
        (_, Some(code @ ("ERR" | "NOAUTH"))) if !has_password => {
            format!("Redis answered {code}; is a password missing?")
        }
        (_, Some(code)) => format!("Redis answered {code}"),
        (kind, None) => format!("Redis cannot be used: {kind:?}"),
    };
    let failed = Error::new(ErrorKind::Store, message);
    match std::error::Error::source(error) {
        Some(cause) if error.kind() == Kind::Io => failed.with_source(cause.to_string()),
        _ => failed,
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", &self.link.server)
            .field("key_prefix", &self.prefix)
            .finish()
    }
}
