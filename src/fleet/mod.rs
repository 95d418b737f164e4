//! A provider in front of a provider: takes a sibling's token from the store,
//! or fetches one under a lease and leaves it there. The cache never hears of
//! it.

mod acceptance;
mod breaker;
mod entry;
mod fetch;
#[cfg(feature = "file")]
mod file;
mod key;
mod lease;
mod members;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod seal;
mod store;
pub(crate) mod store_key;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use self::breaker::StoreStatus;
use self::breaker::{Aside, Guard};
use self::fetch::Errand;
#[cfg(feature = "file")]
pub use self::file::FileStore;
pub use self::key::{KeyMaterial, KeyedProvider, Minted};
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
#[cfg(any(feature = "file", feature = "redis"))]
pub(crate) use self::store::millis;
pub use self::store::{LARGEST_ENTRY, LONGEST_LEASE, Lease, Spent, Stored, Terms, TokenStore};
pub use self::store_key::{Holder, StoreKey};
use crate::allowance::Allowance;
use crate::error::Error;
use crate::provider::{FetchContext, TokenProvider};
use crate::token::AccessToken;

/// A lease is this much longer than the fetch that it is for.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// One token for a whole fleet: a provider in front of a provider.
///
/// Asked for a token, it takes the one that a sibling left in the store.
/// Otherwise one process fetches, under a lease that ends by itself, and the
/// others take what it got. What the token endpoint allows is counted in the
/// store too, so that the fleet keeps to it as one.
///
/// The store is a help, not a need: while it is down, slow, full, read-only or
/// full of something else, requests go on as without it, each process within
/// its own [`Allowance`]. An operation has 500 ms; after one that failed the
/// store is left alone for 10 s. [`status`](Self::status), the events
/// `officernd_auth.store_failed` and `officernd_auth.store_back`, and the metric
/// `officernd_auth_store_failures_total` tell.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, ScriptedProvider};
/// use officernd_auth::{SharedTokenProvider, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// // In place of these: HttpTokenProvider, and RedisStore::new("redis://…")?
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
/// # What is shared with whom
///
/// Processes find each other's token only if everything that it depends on is
/// the same: endpoint, client id, secret, the set of scopes, every form
/// parameter ([`KeyMaterial`]). With another secret, what is in the store
/// cannot even be opened.
///
/// # Times
///
/// A lease is for `fetch_timeout` + 5 s: 15 s by default. Who waits under
/// somebody's lease looks every 50 to 200 ms. If the process that has it is
/// killed in mid-fetch, the next takes over when the lease ends: keep
/// `acquire_timeout` (30 s) above a lease and a fetch, or who waits then fails.
/// A token is handed over while at least 60 s, or a quarter of its life, are
/// left; for a refresh ahead of time, half of it. One that has just replaced a
/// rejected token is not replaced in its turn for 60 s.
pub struct SharedTokenProvider<P, S> {
    inner: Arc<Inner<P, S>>,
}

struct Inner<P, S> {
    provider: P,
    store: S,
    guard: Guard,
}

impl<P: KeyedProvider, S: TokenStore> SharedTokenProvider<P, S> {
    /// The provider's tokens, shared through the store.
    #[must_use]
    pub fn new(provider: P, store: S) -> Self {
        Self {
            inner: Arc::new(Inner {
                provider,
                store,
                guard: Guard::default(),
            }),
        }
    }
}

impl<P, S> SharedTokenProvider<P, S> {
    /// How it gets on with the store. Keep a clone to ask: the cache takes one
    /// for itself.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.inner.guard.status()
    }
}

impl<P: KeyedProvider, S: TokenStore> TokenProvider for SharedTokenProvider<P, S> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let errand = Errand::new(&self.inner, cx).await?;
        match errand.through_the_store().await {
            Ok(result) => result,
            Err(Aside) => errand.directly().await,
        }
    }

    fn allowance(&self) -> Option<Allowance> {
        self.inner.provider.allowance()
    }

    fn spends_allowance(&self) -> bool {
        true
    }

    fn credentials_changed(&self) -> impl Future<Output = bool> + Send {
        self.inner.provider.credentials_changed()
    }
}

impl<P, S> Clone for SharedTokenProvider<P, S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<P: fmt::Debug, S: fmt::Debug> fmt::Debug for SharedTokenProvider<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTokenProvider")
            .field("provider", &self.inner.provider)
            .field("store", &self.inner.store)
            .field("status", &self.status())
            .finish()
    }
}
