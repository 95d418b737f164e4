//! A provider in front of a provider: takes a sibling's token from the store,
//! or fetches one under a lease and leaves it there. The cache never hears of
//! it.

mod choice;
mod entry;
mod fleet;
mod guard;
mod lease;
mod material;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::choice::{Held, Offer};
use self::entry::{Failure, TokenEntry};
use self::fleet::Fleet;
pub use self::guard::StoreStatus;
use self::guard::{Aside, Guard};
use self::lease::{Leased, Turn};
pub use self::material::{KeyMaterial, KeyedProvider};
use super::{Allowance, FetchContext, Permit, TokenProvider};
use crate::clock::{later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::store::seal::{Purpose, Sealer};
use crate::store::{StoreKey, TokenStore, key};
use crate::sync::Runtime;
use crate::token::AccessToken;
use crate::trace;

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
/// store is left alone for 10 s. [`status`](Self::status) and the events
/// `officernd_auth.store_failed` and `officernd_auth.store_back` tell.
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
/// killed in mid-fetch, the next takes over when the lease ends, so within the
/// 30 s of `acquire_timeout`. A token is handed over while at least 60 s, or a
/// quarter of its life, are left; for a refresh ahead of time, half of it.
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
        let errand = Errand::new(&self.inner, cx);
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
}

/// One fetch.
struct Errand<'a, P, S> {
    inner: &'a Arc<Inner<P, S>>,
    cx: FetchContext,
    /// The cache counts a token's life from here.
    start: Instant,
    sealer: Sealer,
    token: StoreKey,
    failure: StoreKey,
    window: StoreKey,
}

impl<'a, P: KeyedProvider, S: TokenStore> Errand<'a, P, S> {
    fn new(inner: &'a Arc<Inner<P, S>>, cx: FetchContext) -> Self {
        let start = cx.clock().now();
        let material = inner.provider.key_material();
        let sealer = material.sealer();
        Self {
            inner,
            cx,
            start,
            token: sealer.name(Purpose::Token),
            failure: sealer.name(Purpose::Failure),
            window: material.window(),
            sealer,
        }
    }

    /// Takes a sibling's token, or fetches one under the lease.
    async fn through_the_store(&self) -> Result<Result<AccessToken, Error>, Aside> {
        loop {
            if let Some(token) = self.taken().await? {
                return Ok(Ok(token));
            }
            let mut lease = match Leased::take(self).await? {
                Turn::Ours(lease) => lease,
                Turn::Later(at) => {
                    self.cx.clock().sleep_until(at).await;
                    continue;
                }
            };
            // The one before us may have left it between the two questions.
            if let Some(token) = self.taken().await? {
                lease.release().await;
                return Ok(Ok(token));
            }
            let earlier = self.failure().await?;
            let held_back = earlier.map(|failure| (failure, failure.left(self.cx.clock().wall())));
            if let Some((failure, left)) = held_back.filter(|(_, left)| !left.is_zero()) {
                lease.release().await;
                return Ok(Err(failure.error(left)));
            }
            let fleet = Fleet::new(self.inner, self.window.clone());
            let cx = self.cx.clone().behind(fleet.clone());
            let permit = match lease.keep_for(self.permit(&cx)).await? {
                Some(Ok(permit)) => permit,
                Some(Err(error)) => {
                    lease.release().await;
                    fleet.settle(&cx).await;
                    return Ok(Err(error));
                }
                // We stood still for so long that the lease is another's.
                None => {
                    fleet.settle(&cx).await;
                    continue;
                }
            };
            let result = self.fetched(&cx).await;
            self.inner.guard.count(|status| status.fetched += 1);
            self.publish(&result, earlier, &lease).await;
            drop(permit);
            // The token is there; nobody waits for the tidying up.
            let closing = async move {
                lease.release().await;
                fleet.settle(&cx).await;
            };
            match Runtime::current() {
                Ok(runtime) => runtime.spawn(closing),
                Err(_) => closing.await,
            }
            return Ok(result.map(|fetched| self.counted(&fetched)));
        }
    }

    /// As without a store, but for leaving the token there if it is back.
    async fn directly(&self) -> Result<AccessToken, Error> {
        self.inner.guard.count(|status| status.direct += 1);
        let permit = self.permit(&self.cx).await?;
        let result = self.fetched(&self.cx).await;
        drop(permit);
        let fetched = result?;
        if let Ok(holder) = key::Holder::random() {
            self.leave(&fetched, &holder).await;
        }
        Ok(self.counted(&fetched))
    }

    async fn permit(&self, cx: &FetchContext) -> Result<Option<Permit>, Error> {
        if self.inner.provider.spends_allowance() {
            return Ok(None);
        }
        cx.permit().await.map(Some)
    }

    async fn fetched(&self, cx: &FetchContext) -> Result<Fetched, Error> {
        let clock = cx.clock();
        let (sent, born) = (clock.now(), clock.wall());
        let until = later(sent, cx.fetch_timeout());
        match timeout_at(clock, until, self.inner.provider.fetch(cx.clone())).await {
            Some(token) => Ok(Fetched {
                entry: TokenEntry {
                    token: token?,
                    born,
                },
                sent,
            }),
            None => Err(Error::new(
                ErrorKind::Timeout,
                "the token endpoint did not answer within the fetch timeout",
            )),
        }
    }

    /// The token with its life counted from the start of this errand, which is
    /// what the cache does: waiting for a turn is not ageing.
    fn counted(&self, fetched: &Fetched) -> AccessToken {
        let waited = fetched.sent.saturating_duration_since(self.start);
        let life = fetched.entry.token.expires_in();
        fetched.entry.token.with_life(life.saturating_add(waited))
    }

    /// A sibling's token, if there is one that will do.
    async fn taken(&self) -> Result<Option<AccessToken>, Aside> {
        let clock = self.cx.clock();
        let load = self.inner.store.load(&self.token);
        let Some(stored) = self.inner.guard.run(clock, "load", load).await? else {
            return Ok(None);
        };
        let opened = self.sealer.open(Purpose::Token, &stored.entry);
        let Some(entry) = opened.and_then(|plain| TokenEntry::decode(&plain)) else {
            // Garbled, put here by somebody else, or of another version.
            trace::store_entry_unusable();
            return Ok(None);
        };
        let (now, wall) = (clock.now(), clock.wall());
        let granted = entry.token.expires_in();
        let left = entry.left(wall).min(stored.expires_in);
        let left = choice::safe(left, granted);
        let held = self.cx.previous.as_ref().map(|previous| Held {
            left: previous.ends_at.saturating_duration_since(now),
            same: previous.token.header_value() == entry.token.header_value(),
            asked_since: entry.born > previous.landed_by,
        });
        let offer = Offer {
            left,
            granted,
            held,
        };
        if !choice::takes(self.cx.cause(), offer) {
            return Ok(None);
        }
        self.inner.guard.count(|status| status.taken += 1);
        trace::token_shared(self.cx.cause().as_str(), left);
        let waited = now.saturating_duration_since(self.start);
        Ok(Some(entry.token.with_life(left.saturating_add(waited))))
    }

    async fn failure(&self) -> Result<Option<Failure>, Aside> {
        let load = self.inner.store.load(&self.failure);
        let stored = self.inner.guard.run(self.cx.clock(), "load", load).await?;
        let opened = stored.and_then(|stored| self.sealer.open(Purpose::Failure, &stored.entry));
        Ok(opened.and_then(|plain| Failure::decode(&plain)))
    }

    /// Leaves the result for the siblings. If that fails, the result is still
    /// good for this process.
    async fn publish(
        &self,
        result: &Result<Fetched, Error>,
        earlier: Option<Failure>,
        lease: &Leased<P, S>,
    ) {
        let error = match result {
            Ok(fetched) => return self.leave(fetched, lease.holder()).await,
            Err(error) => error,
        };
        let wall = self.cx.clock().wall();
        if let Some(failure) = Failure::after(error, earlier, wall) {
            let (plain, life) = (failure.encode(), failure.life(wall));
            self.save(Purpose::Failure, &plain, life, lease.holder())
                .await;
        }
    }

    async fn leave(&self, fetched: &Fetched, holder: &key::Holder) {
        let clock = self.cx.clock();
        let age = clock.now().saturating_duration_since(fetched.sent);
        let life = fetched.entry.token.expires_in().saturating_sub(age);
        if !life.is_zero() {
            let plain = fetched.entry.encode();
            self.save(Purpose::Token, &plain, life, holder).await;
        }
    }

    async fn save(&self, purpose: Purpose, plain: &[u8], life: Duration, holder: &key::Holder) {
        let name = match purpose {
            Purpose::Token => &self.token,
            Purpose::Failure => &self.failure,
        };
        let Ok(nonce) = key::random() else { return };
        let Some(envelope) = self.sealer.seal(purpose, nonce, plain) else {
            return;
        };
        let save = self.inner.store.save(name, &envelope, life, holder);
        // What went wrong is told; nothing depends on it.
        let _ = self.inner.guard.run(self.cx.clock(), "save", save).await;
    }
}

/// A token from the endpoint, and when it was asked for.
struct Fetched {
    entry: TokenEntry,
    sent: Instant,
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
