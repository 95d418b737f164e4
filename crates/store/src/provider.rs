//! The provider that shares its tokens, and what it remembers between fetches.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderValue;
use officernd_auth::provider::KeyedProvider;
use officernd_auth::{AccessToken, Error, ErrorKind, FetchContext, RateLimit, TokenProvider};

use crate::breaker::{CircuitBreaker, StoreStatus};
use crate::clock::later;
use crate::fetch::Fetch;
use crate::store::{DynStore, Name, TokenStore};

/// Shares the tokens of a provider among processes, through a store.
///
/// Takes the token that another process left in the store. Otherwise one process fetches under a lease that
/// ends by itself, and the others take what it received. The store also counts the token requests, so that
/// the fleet keeps to one [`RateLimit`].
///
/// ```
/// use officernd_auth::testing::ScriptedProvider;
/// use officernd_auth_store::testing::MemoryStore;
/// use officernd_auth::TokenCache;
/// use officernd_auth_store::SharedTokenProvider;
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
/// Processes share a token only if everything that it depends on is the same: endpoint, client id, secret,
/// the set of scopes, every form parameter ([`KeyMaterial`](officernd_auth::provider::KeyMaterial)). A token
/// is sealed under the credentials that minted it; with another secret an entry can neither be found nor
/// opened. During a rotation, processes with the old and the new pair share one token per pair.
///
/// A failed token request is shared too: no process sends another one for 1 s, or for longer if it fails
/// again. A request whose connection was never made is not, because that is the process's own fault. Those
/// are refused connections, unknown names, and TLS handshakes that fail. A connection that still hangs when
/// the `fetch_timeout` ends counts as a request that was sent.
///
/// # Times
///
/// A lease lasts for `fetch_timeout` + 5 s: 15 s by default. Give all processes the same `fetch_timeout`. If
/// the process that has the lease is killed, the next one takes over when the lease ends: keep
/// `acquire_timeout` (30 s) above a lease and a fetch.
///
/// A stored token is used while it has 60 s left, or a quarter of its life if that is shorter; for a refresh
/// ahead, half of its life. After a 401, a token is replaced only once it is 60 s old, or a quarter of its
/// life.
///
/// Credentials that the endpoint refused are read again every 5 s. Another pair is sent at once, the same
/// pair not before 60 s.
///
/// # Without the store
///
/// Requests continue if the store fails. An operation that fails or takes 3 s puts the store out of use for
/// 10 s. Meanwhile requests go on without it, each process within its own rate limit.
/// [`status`](Self::status), the events `officernd_auth.store_failed` and `officernd_auth.store_back`, and
/// the metric `officernd_auth_store_failures_total` report it.
///
/// A refresh ahead of time waits for the store, for up to half of what is left of the token. After a 429 a
/// process sends nothing for 1 to 4 min, doubling to 15 to 60 min; after another transient failure for 1 s,
/// then 4 s, doubling to 30 s. It looks into the store about every 10 s meanwhile. A token that was fetched
/// without the store is stored as soon as the store works again.
pub struct SharedTokenProvider<P> {
    shared: Arc<Shared<P>>,
}

pub(crate) struct Shared<P> {
    pub(crate) provider: P,
    pub(crate) store: Box<dyn DynStore>,
    pub(crate) breaker: CircuitBreaker,
    memory: Mutex<Memory>,
}

/// What one fetch leaves to the next.
#[derive(Default)]
pub(crate) struct Memory {
    /// The last token that was handed out, and the holder that minted it, if it came from the store or is
    /// there.
    last: Option<(HeaderValue, Option<String>)>,
    /// The key of the credentials with which the last token request failed, until when nothing is sent with
    /// them, and what it failed with.
    pause: Option<(Name, Instant, ErrorKind)>,
    /// Without the store nothing is sent before this. Later than the pause if processes that share nothing
    /// must spread out.
    pub(crate) alone_until: Option<Instant>,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The generation of a token that still serves, and when its refresh ahead of time goes on without the
    /// store.
    refresh_at: Option<(u64, Instant)>,
    /// The number of the last token that was fetched without the store.
    pub(crate) late: u64,
}

impl<P: KeyedProvider> SharedTokenProvider<P> {
    /// Shares the tokens of `provider` through `store`.
    #[must_use]
    pub fn new(provider: P, store: impl TokenStore) -> Self {
        Self {
            shared: Arc::new(Shared {
                provider,
                store: Box::new(store),
                breaker: CircuitBreaker::default(),
                memory: Mutex::default(),
            }),
        }
    }
}

impl<P> SharedTokenProvider<P> {
    /// Returns how the store is used. Keep a clone to ask: the cache takes one.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.shared.breaker.status()
    }
}

impl<P: KeyedProvider> TokenProvider for SharedTokenProvider<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        Fetch::new(&self.shared, cx).await?.run().await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.shared.provider.rate_limit()
    }
}

impl<P> Shared<P> {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every field stands for itself.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Returns who minted this token, if that is known.
    pub(crate) fn minted_by(&self, token: Option<&AccessToken>) -> Option<String> {
        let (header, minted_by) = self.last.as_ref()?;
        minted_by
            .clone()
            .filter(|_| Some(header) == token.map(AccessToken::header_value))
    }

    /// Returns until when nothing is sent with the credentials of this key, and what the last token request
    /// failed with.
    pub(crate) fn pause(&self, key: &Name, now: Instant) -> Option<(Instant, ErrorKind)> {
        let (paused, until, kind) = self.pause.as_ref()?;
        (paused == key && now < *until).then_some((*until, *kind))
    }

    /// Returns the same for a fetch without the store.
    pub(crate) fn pause_alone(&self, key: &Name, now: Instant) -> Option<(Instant, ErrorKind)> {
        let until = self.alone_until.filter(|until| now < *until)?;
        Some((until, self.failed_with(key)?))
    }

    /// Returns what the last token request with the credentials of this key failed with, if there was no
    /// token since.
    pub(crate) fn failed_with(&self, key: &Name) -> Option<ErrorKind> {
        let (failed, _, kind) = self.pause.as_ref()?;
        (failed == key).then_some(*kind)
    }

    /// Starts the backoff after a failed token request.
    pub(crate) fn failed(&mut self, key: &Name, until: Instant, kind: ErrorKind) {
        self.failures = self.failures.saturating_add(1);
        self.pause = Some((key.clone(), until, kind));
        self.alone_until = Some(until);
    }

    /// Records a token and ends the backoff.
    pub(crate) fn succeeded(&mut self, token: &AccessToken, minted_by: Option<String>) {
        self.last = Some((token.header_value().clone(), minted_by));
        (self.failures, self.pause) = (0, None);
    }

    /// Returns when a refresh ahead of the expiry of this token goes on without the store: after half of what
    /// was left when the store was first missed.
    pub(crate) fn refresh_at(
        &mut self,
        generation: u64,
        ends_at: Instant,
        now: Instant,
    ) -> Instant {
        match self.refresh_at {
            Some((known, at)) if known == generation => at,
            _ => {
                let at = later(now, ends_at.saturating_duration_since(now) / 2);
                self.refresh_at = Some((generation, at));
                at
            }
        }
    }

    /// Numbers a token that was fetched without the store.
    pub(crate) fn next_late(&mut self) -> u64 {
        self.late += 1;
        self.late
    }
}

impl<P> Clone for SharedTokenProvider<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for SharedTokenProvider<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTokenProvider")
            .field("provider", &self.shared.provider)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
