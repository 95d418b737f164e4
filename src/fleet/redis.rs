//! The store for a fleet: Redis or Valkey.

mod connect;
mod script;
mod target;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ErrorKind as Kind, FromRedisValue, RedisError, ServerErrorKind};

use self::connect::Connections;
use self::script::Script;
use self::target::Target;
use super::{
    Holder, LARGEST_ENTRY, LONGEST_LEASE, Lease, Spent, StoreKey, Stored, Terms, TokenStore, millis,
};
use crate::error::{ConfigError, Error, ErrorKind};

/// What keys begin with unless told otherwise. ACLs depend on it.
const PREFIX: &str = "officernd:";

/// A [`TokenStore`] in Redis (6 or newer) or Valkey.
///
/// Every operation is one Lua script on the server's own clock, so it happens
/// whole or not at all and no pod's clock matters. It connects when it is first
/// used, connects again by itself, and gives up an operation that takes over
/// 500 ms; the [`SharedTokenProvider`](crate::SharedTokenProvider) above then
/// goes on without it. Clones share the connection, of which there is at most
/// one. Put it behind TLS (`rediss://`) unless the network is your own: what is
/// stored is sealed, but a password on the way is not.
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
/// It needs `EVAL` with what the scripts call, on keys under its prefix, and no
/// channels:
///
/// ```text
/// ACL SETUSER app on >hunter2 ~officernd:* resetchannels -@all +eval +time +get +set +del
///   +strlen +pttl +pexpire +zadd +zcard +zscore +zrange +zremrangebyscore +select +ping
/// ```
///
/// On a cluster also `+cluster|slots +readonly`. Keys are
/// `officernd:{<32 hex digits>}:token`, `…:lease` and `…:window`: the braces
/// keep those of one token on one node. Each ends by itself.
///
/// # TLS
///
/// `rediss://` trusts the system's roots, or those of
/// [`root_certificates`](Self::root_certificates). The client takes rustls's
/// process-wide provider of cryptography; if the program has installed none by
/// then, aws-lc-rs is installed. Verification cannot be switched off.
#[derive(Clone)]
pub struct RedisStore {
    connections: Arc<Connections>,
    prefix: Arc<str>,
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
        Ok(Self::over(Target::server(url)?))
    }

    /// The servers behind these sentinels. The second URL is that of the
    /// servers, with the name of their group as the host.
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
        Ok(Self::over(Target::sentinel(sentinels, servers)?))
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
        Ok(Self::over(Target::cluster(nodes)?))
    }

    /// Begins keys with something else. At most 128 printable ASCII characters
    /// without braces and white space.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] for others.
    pub fn key_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        let sound = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
        if prefix.len() > 128 || !prefix.bytes().all(sound) {
            return Err(ConfigError::Store {
                problem: "has a key prefix with characters other than printable ASCII, with \
                          braces or white space, or with more than 128 of them"
                    .to_owned(),
            });
        }
        self.prefix = prefix.into();
        Ok(self)
    }

    /// Trusts these roots (PEM) in place of the system's.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Store`] if they cannot be read, or the URL is not one of
    /// TLS.
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let target = self.connections.target().clone().trusting(pem.into())?;
        Ok(Self {
            connections: Arc::new(Connections::new(target)),
            prefix: self.prefix,
        })
    }

    fn over(target: Target) -> Self {
        Self {
            connections: Arc::new(Connections::new(target)),
            prefix: PREFIX.into(),
        }
    }

    fn key(&self, key: &StoreKey, what: &str) -> String {
        format!("{}{{{key}}}:{what}", self.prefix)
    }

    async fn eval<T: FromRedisValue>(&self, script: &Script<'_>) -> Result<T, Error> {
        let command = script.command();
        self.connections
            .run(&command)
            .await
            .map_err(|error| failed(&error))
    }
}

impl TokenStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, Error> {
        let script = Script::new(script::LOAD)
            .key(self.key(key, "token"))
            .number(u64::try_from(LARGEST_ENTRY).unwrap_or(u64::MAX));
        let stored: Option<(Vec<u8>, u64)> = self.eval(&script).await?;
        Ok(stored.map(|(entry, left)| Stored::new(entry, Duration::from_millis(left))))
    }

    async fn save(
        &self,
        key: &StoreKey,
        entry: &[u8],
        life: Duration,
        holder: &Holder,
    ) -> Result<bool, Error> {
        let script = Script::new(script::SAVE)
            .key(self.key(key, "token"))
            .key(self.key(key, "lease"))
            .bytes(entry)
            .number(millis(life))
            .bytes(holder.as_str().as_bytes());
        self.eval(&script).await
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        holder: &Holder,
        limit: Duration,
    ) -> Result<Lease, Error> {
        let script = Script::new(script::ACQUIRE)
            .key(self.key(key, "lease"))
            .bytes(holder.as_str().as_bytes())
            .number(millis(limit.min(LONGEST_LEASE)))
            .number(millis(LONGEST_LEASE));
        Ok(match self.eval(&script).await? {
            0 => Lease::Held,
            left => Lease::Busy(Duration::from_millis(left)),
        })
    }

    async fn release(&self, key: &StoreKey, holder: &Holder) -> Result<(), Error> {
        let script = Script::new(script::RELEASE)
            .key(self.key(key, "lease"))
            .bytes(holder.as_str().as_bytes());
        self.eval::<u64>(&script).await.map(drop)
    }

    async fn spend(&self, key: &StoreKey, ticket: &Holder, terms: Terms) -> Result<Spent, Error> {
        let longest = terms.per.saturating_add(terms.out);
        let script = Script::new(script::SPEND)
            .key(self.key(key, "window"))
            .bytes(ticket.as_str().as_bytes())
            .number(u64::from(terms.requests))
            .number(millis(longest));
        Ok(match self.eval(&script).await? {
            0 => Spent::Granted,
            wait => Spent::Wait(Duration::from_millis(wait)),
        })
    }

    async fn settle(&self, key: &StoreKey, ticket: &Holder, per: Duration) -> Result<(), Error> {
        let script = Script::new(script::SETTLE)
            .key(self.key(key, "window"))
            .bytes(ticket.as_str().as_bytes())
            .number(millis(per));
        self.eval::<u64>(&script).await.map(drop)
    }
}

/// Of what the server wrote, only the code is passed on: the first word, such
/// as `OOM` or `WRONGPASS`.
fn failed(error: &RedisError) -> Error {
    let message = match error.kind() {
        Kind::Io if error.is_timeout() => "Redis did not answer in time".to_owned(),
        Kind::Io if error.is_connection_refusal() => "Redis refuses connections".to_owned(),
        Kind::Io => "the connection to Redis failed".to_owned(),
        Kind::AuthenticationFailed => "Redis refuses the user or password".to_owned(),
        Kind::Server(ServerErrorKind::ReadOnly) => "Redis is read-only".to_owned(),
        kind => match error.code().filter(|code| is_code(code)) {
            Some(code) => format!("Redis answered {code}"),
            None => format!("Redis cannot be used: {kind:?}"),
        },
    };
    Error::new(ErrorKind::Store, message)
}

fn is_code(code: &str) -> bool {
    code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", self.connections.target())
            .field("key_prefix", &self.prefix)
            .finish()
    }
}
