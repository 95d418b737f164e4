//! One token for many processes, over a shared store. For a fleet with Redis:
//!
//! ```no_run
//! use officernd_auth::fleet::{RedisStore, SharedTokenProvider};
//! use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let http = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
//! let redis = RedisStore::new("rediss://app:password@redis.internal:6379")?;
//! let layer = OfficeRndAuthLayer::new(SharedTokenProvider::new(http, redis));
//! # drop(layer);
//! # Ok(())
//! # }
//! ```
//!
//! OfficeRnD allows five token requests a minute. Twenty pods that start
//! together, a crash loop and a rolling deploy need more; with a store, each
//! process takes the token that another one has fetched.
//!
//! # Which store
//!
//! | store | for | feature |
//! |---|---|---|
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisStore`] | a fleet: Redis or Valkey, one server, Sentinel, a cluster | `redis` |"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "| `RedisStore` | a fleet: Redis or Valkey, one server, Sentinel, a cluster | `redis` |"
)]
#![cfg_attr(
    feature = "file",
    doc = "| [`FileStore`] | processes on one host | `file` |"
)]
#![cfg_attr(
    not(feature = "file"),
    doc = "| `FileStore` | processes on one host | `file` |"
)]
//! | your own [`TokenStore`] | whatever you already run | `store` |
//!
//! A `FileStore` on each host can stand before Redis, because a
//! [`SharedTokenProvider`] can itself be shared: then hosts, not processes,
//! come to Redis. Without any store, five requests a minute are 300 tokens an
//! hour: above 300 processes that share nothing, no backoff serves all of them.
//!
//! # What a store sees
//!
//! Names made by HKDF, and entries sealed by XChaCha20-Poly1305 under a key
//! made of the client secret. A reader of the store learns no token; a writer
//! cannot make a process use a token of its own, but can put back an entry that
//! is still alive, hold requests up by a lease (15 s), or use up the window.
//!
//! # How it works
//!
//! [`TokenStore::claim`] returns the entry, or grants the fetch to one process,
//! or says how long to wait. That process sends one token request and calls
//! [`TokenStore::finish`], which saves the token or the failure. The others ask
//! again every 50 to 200 ms, doubling to 0.9 s. A lease covers one request (`fetch_timeout` + 5 s) and is never held
//! while waiting. Before sending, a process checks the age of its lease by both
//! clocks: one that was stopped claims again.
//!
//! A test explores this protocol exhaustively, in 38,979 states: three
//! processes, a window of two requests, with a crash, pauses past the lease, lost
//! answers, rejected tokens and steps of the wall clock. It checks that there is
//! one live grant per key, that the window is never exceeded, that no older
//! entry replaces a newer one, and that from any state one more token request
//! serves each process, or tells it when to ask again.

mod acceptance;
mod backoff;
mod breaker;
mod entry;
mod fetch;
#[cfg(feature = "file")]
mod file;
mod grant;
mod key;
mod late;
#[cfg(all(test, feature = "testing"))]
mod model;
mod reader;
#[cfg(any(feature = "testing", feature = "file"))]
mod record;
#[cfg(feature = "redis")]
mod redis;
mod reservation;
pub(crate) mod seal;
mod session;
mod store;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;

use self::backoff::Alone;
use self::breaker::CircuitBreaker;
pub use self::breaker::StoreStatus;
use self::fetch::SharedFetch;
#[cfg(feature = "file")]
pub use self::file::FileStore;
pub use self::key::{KeyMaterial, KeyedProvider, Minted};
#[cfg(feature = "testing")]
pub(crate) use self::record::{Record, Window};
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
use self::store::DynStore;
pub use self::store::{
    Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore,
};
use crate::allowance::Allowance;
use crate::error::Error;
use crate::provider::{FetchContext, TokenProvider};
use crate::token::AccessToken;

/// A lease lasts this much longer than the request that it covers. A process
/// sends within this time of its claim, or claims again.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Shares the tokens of a provider among processes, through a store.
///
/// Takes the token that another process left in the store. Otherwise one
/// process fetches under a lease that ends by itself, and the others take what
/// it received. The store also counts the token requests, so that the fleet
/// keeps to one [`Allowance`].
///
/// The store is a help, not a need. While it is down, slow, full or read-only,
/// requests go on without it, each process within its own allowance.
/// An operation that fails or takes 3 s takes the store out of use for 10 s. [`status`](Self::status), the events
/// `officernd_auth.store_failed` and `officernd_auth.store_back`, and the metric
/// `officernd_auth_store_failures_total` report it.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, ScriptedProvider};
/// use officernd_auth::{SharedTokenProvider, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// // In place of these: HttpTokenProvider, and RedisStore::new("redis://...")?
/// let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
///
/// let pods: Vec<TokenCache> = (0..20)
///     .map(|_| SharedTokenProvider::new(endpoint.clone(), store.clone()))
///     .map(TokenCache::new)
///     .collect();
/// for pod in &pods {
///     assert_eq!(pod.token().await?.header_value(), "Bearer scripted-1");
/// }
/// assert_eq!(endpoint.calls(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Shared and not shared
///
/// Processes share a token only if everything that it depends on is the same:
/// endpoint, client id, secret, the set of scopes, every form parameter
/// ([`KeyMaterial`]). A token is sealed under the credentials that minted it;
/// with another secret an entry can neither be found nor opened. During a
/// rotation, processes with the old and the new pair share one token per pair.
///
/// # Times
///
/// A lease lasts for `fetch_timeout` + 5 s: 15 s by default. Give all processes
/// the same `fetch_timeout`. If the process that has the lease is killed, the
/// next one takes over when the lease ends: keep `acquire_timeout` (30 s) above
/// a lease and a fetch. A stored token is used while at least 60 s, or a
/// quarter of its life, are left; for a refresh ahead of time, half of its
/// life. A token that has just replaced a rejected one is not replaced for 60 s.
///
/// # Without the store
///
/// A refresh ahead of time waits for the store, for up to half of what is left
/// of the token. After a 429 a process sends nothing for at least the
/// allowance's window (60 s), tripling, with a jitter of up to four times that,
/// to 60 min at most; after another failure that may pass, for up to 1 s,
/// doubling to 60 s. It looks into the store about every 10 s meanwhile. A token
/// that was fetched without the store is left there as soon as the store works again.
pub struct SharedTokenProvider<P> {
    inner: Arc<Inner<P>>,
}

struct Inner<P> {
    provider: P,
    store: Arc<dyn DynStore>,
    breaker: CircuitBreaker,
    alone: Mutex<Alone>,
    /// The last token that a fetch returned, to know it as the current one.
    last: Mutex<Option<LastToken>>,
    /// A token that was fetched without the store.
    late: late::Slot,
}

struct LastToken {
    header: HeaderValue,
    /// The holder that minted it, if it came from the store or is there.
    minted_by: Option<String>,
}

impl<P: KeyedProvider> SharedTokenProvider<P> {
    /// The provider's tokens, shared through the store.
    #[must_use]
    pub fn new(provider: P, store: impl TokenStore) -> Self {
        Self {
            inner: Arc::new(Inner {
                provider,
                store: Arc::new(store),
                breaker: CircuitBreaker::default(),
                alone: Mutex::default(),
                last: Mutex::default(),
                late: late::Slot::default(),
            }),
        }
    }
}

impl<P> SharedTokenProvider<P> {
    /// How the store is used. Keep a clone to ask: the cache takes one.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.inner.breaker.status()
    }
}

impl<P> Inner<P> {
    fn alone(&self) -> MutexGuard<'_, Alone> {
        // Every field stands for itself.
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<LastToken>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: KeyedProvider> TokenProvider for SharedTokenProvider<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let mut fetch = SharedFetch::new(&self.inner, cx).await?;
        loop {
            if let Ok(result) = fetch.with_store().await {
                return result;
            }
            if let Some(result) = fetch.without_store().await {
                return result;
            }
        }
    }

    fn allowance(&self) -> Option<Allowance> {
        self.inner.provider.allowance()
    }

    fn spends_allowance(&self) -> bool {
        true
    }

    async fn credentials_changed(&self) -> bool {
        self.inner.provider.credentials_changed().await
    }
}

/// So that a second store can stand before this one.
impl<P: KeyedProvider> KeyedProvider for SharedTokenProvider<P> {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        self.inner.provider.key_material().await
    }
}

impl<P> Clone for SharedTokenProvider<P> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for SharedTokenProvider<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTokenProvider")
            .field("provider", &self.inner.provider)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
