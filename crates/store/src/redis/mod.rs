//! The store for a fleet: Redis or Valkey.

mod link;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::ConnectionLike;
use ::redis::{
    ErrorKind as Kind, FromRedisValue as _, RedisError, ServerErrorKind, ToRedisArgs, Value,
};
use officernd_auth::{Error, ErrorKind};

use self::link::{Link, Server, erased};
use self::script::{CLAIM, FINISH, Script};
use crate::error::ConfigError;
use crate::store::{
    Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore, millis, whole_millis,
};

/// The default prefix of keys. ACLs depend on it.
const PREFIX: &str = "officernd:";

/// A [`TokenStore`] in Redis (6 or newer) or Valkey.
///
/// Each operation is one Lua script on the server's clock: it happens whole or not at all, and no pod's clock
/// matters. Connects when it is first used, and reconnects by itself. Clones share the connection. Use TLS
/// (`rediss://`) unless the network is your own: entries are sealed, but the password is sent as it is.
///
/// ```
/// use officernd_auth_store::RedisStore;
///
/// # fn main() -> Result<(), officernd_auth_store::ConfigError> {
/// let store = RedisStore::new("redis://app:hunter2@redis.internal:6379/0")?;
/// assert!(!format!("{store:?}").contains("hunter2"));
/// # Ok(())
/// # }
/// ```
///
/// # Time limits
///
/// An operation has 500 ms. Without an answer, or if the server is no longer a master, the store connects
/// again and repeats the operation, which then has 1 s. With connecting, an operation takes 3 s at most; then
/// it fails.
///
/// # Keys and rights
///
/// Keys are `officernd:{<endpoint>}:<token>:entry`, `:lease`, and `officernd:{<endpoint>}:window`: the braces
/// keep those of one token endpoint on one node. Each key expires. A key of another type under these names
/// takes the store out of use until it is deleted.
///
/// [The crate page](crate#rights-for-redis) lists the rights to grant. The client of a cluster also sends
/// `PING` and `CLIENT SETINFO`, and works without the right to them.
///
/// Set `maxclients`, `tcp-backlog` and the kernel's `somaxconn` above the number of processes: each has one
/// connection.
///
/// # TLS
///
/// `rediss://` trusts the system's roots, or those of [`root_certificates`](Self::root_certificates).
/// Verification cannot be switched off. Uses the provider of cryptography that the program has installed for
/// rustls. If there is none when the store first connects, installs aws-lc-rs for the process.
///
/// The Redis client reads the system's roots each time it connects, even when it uses others, and fails if
/// one of the files cannot be read: check `SSL_CERT_FILE` and `SSL_CERT_DIR`.
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    prefix: Arc<str>,
}

impl RedisStore {
    /// Uses one server: `redis://user:password@host:port/db`, or `rediss://` for TLS. All parts but the host
    /// are optional. Does not connect yet.
    ///
    /// # Errors
    ///
    /// If the URL cannot be used. The error does not show it.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::to(Server::one(url)?, None))
    }

    /// Uses the master behind these sentinels, and asks all of them at once. The second URL is that of the
    /// servers, with the name of their group as host. Each URL has its own user and password.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use officernd_auth_store::RedisStore;
    ///
    /// # fn main() -> Result<(), officernd_auth_store::ConfigError> {
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
        Ok(Self::to(Server::sentinel(sentinels, servers)?, None))
    }

    /// Uses a cluster, given some of its nodes. All nodes have the same user, password and TLS settings.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use officernd_auth_store::RedisStore;
    ///
    /// # fn main() -> Result<(), officernd_auth_store::ConfigError> {
    /// let store = RedisStore::cluster(["redis://node-1:6379", "redis://node-2:6379"])?;
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cluster<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        Ok(Self::to(Server::cluster(nodes)?, None))
    }

    /// Uses your own connection, such as a `ConnectionManager`, or one with client certificates. It has to
    /// reconnect by itself.
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

    /// Sets the prefix of all keys, by default `officernd:`: at most 128 printable ASCII characters without
    /// braces and white space.
    ///
    /// # Errors
    ///
    /// If the prefix is longer, or has other characters.
    pub fn key_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        let is_sound = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
        if prefix.len() > 128 || !prefix.bytes().all(is_sound) {
            return Err(ConfigError::new(
                "has a key prefix with characters other than printable ASCII, with braces or \
                 white space, or with more than 128 of them",
            ));
        }
        self.prefix = prefix.into();
        Ok(self)
    }

    /// Trusts these roots (PEM) in place of the system's, for servers and sentinels.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or no URL is `rediss://`.
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
        let answer = self.link.run(script, &keys, args).await;
        answer.map_err(|error| failed(&error, self.link.server.has_password()))
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
        let answer = self.run(&CLAIM, names, args).await?;
        claimed(answer).ok_or_else(unexpected)
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

/// Reads the answer of the claim script; `None` for another.
fn claimed(answer: Value) -> Option<Claimed> {
    let parts = <Vec<Value>>::from_redis_value(answer).ok()?;
    let number = |at: usize| {
        let millis = parts.get(at).cloned().map(u64::from_redis_value)?.ok()?;
        Some(Duration::from_millis(millis))
    };
    let Value::BulkString(word) = parts.first()? else {
        return None;
    };
    Some(match &**word {
        b"granted" => Claimed::Granted,
        b"leased" => Claimed::Leased(number(1)?),
        b"limited" => Claimed::RateLimited(number(1)?),
        b"entry" => {
            let Value::BulkString(stored) = parts.get(1)? else {
                return None;
            };
            let (id, sealed) = stored.split_at_checked(32)?;
            let id = Name::parse(std::str::from_utf8(id).ok()?)?;
            if sealed.len() > MAX_ENTRY_SIZE {
                return None;
            }
            Claimed::Entry(StoredEntry::new(id, sealed.to_vec(), number(2)?))
        }
        _ => return None,
    })
}

fn unexpected() -> Error {
    let message = "Redis answered something else than the script";
    Error::new(ErrorKind::Store, message)
}

/// Keeps only the code of what the server wrote: the first word, such as `OOM` or `WRONGPASS`. The cause of a
/// connection's end is the system's or rustls's.
fn failed(error: &RedisError, has_password: bool) -> Error {
    let message = match (error.kind(), error.code().filter(|code| is_code(code))) {
        (Kind::Io, _) if error.is_timeout() => "Redis did not answer in time".to_owned(),
        (Kind::Io, _) if error.is_connection_refusal() => "Redis refuses connections".to_owned(),
        (Kind::Io, _) => "the connection to Redis failed".to_owned(),
        (Kind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            "Redis refuses the user or password".to_owned()
        }
        (Kind::Server(ServerErrorKind::ReadOnly), _) => "Redis is read-only".to_owned(),
        // Before a password, Redis refuses long commands with a plain ERR.
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

fn is_code(code: &str) -> bool {
    code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", &self.link.server)
            .field("key_prefix", &self.prefix)
            .finish()
    }
}
