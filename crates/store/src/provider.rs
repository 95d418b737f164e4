//! The provider that shares its tokens, and its state between fetches.

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

/// A provider that shares its tokens among processes, through a store.
///
/// A fetch returns the token in the store, if it is usable. Otherwise one process sends a token request under
/// a lease, and the others take its token. The store also counts the token requests, so that all processes
/// together keep to one [`RateLimit`].
///
/// ```
/// use officernd_auth::testing::ScriptedProvider;
/// use officernd_auth_store::testing::MemoryStore;
/// use officernd_auth::TokenCache;
/// use officernd_auth_store::SharedTokenProvider;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// // In production: HttpTokenProvider, and RedisStore::new("redis://...")?
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
/// Processes share a token if they have the same endpoint, client id, secret, set of scopes and form
/// parameters ([`KeyMaterial`](officernd_auth::provider::KeyMaterial)). A token is sealed under the
/// credentials that minted it: with another secret, its entry can be neither found nor opened. During a
/// rotation, processes with old and new credentials share one token each.
///
/// A failed token request is shared too: no process sends another one for 1 s, or longer if it fails again.
/// A connection that was never made (refused, unknown host, failed TLS handshake) is not shared, because the
/// cause may be in this process. A connection that still hangs when `fetch_timeout` ends counts as sent.
///
/// # Times
///
/// A lease lasts for `fetch_timeout` + 5 s: 15 s by default. Give all processes the same `fetch_timeout`. If
/// the process that has the lease is killed, the next one takes over when the lease ends: keep
/// `acquire_timeout` (30 s) longer than a lease and a fetch.
///
/// A stored token is taken if it is valid for at least 60 s, or a quarter of its lifetime if that is shorter.
/// For a refresh ahead, it must be valid for at least half of its lifetime. After a 401, a token is replaced
/// only once it is 60 s old, or a quarter of its lifetime.
///
/// Credentials that the endpoint refused are read again every 5 s. Different credentials are sent at once.
/// The refused ones are not sent again for at least 60 s.
///
/// # Without the store
///
/// An operation that fails or takes 3 s puts the store out of use for 10 s. Meanwhile each process sends its
/// own token requests, within its own rate limit. [`status`](Self::status), the events
/// `officernd_auth.store_failed` and `officernd_auth.store_back`, and the metric
/// `officernd_auth_store_failures_total` report it.
///
/// A refresh ahead waits for the store until half of the token's remaining lifetime has passed. After a 429, a
/// process sends no token request for 1 to 4 min, doubling to 15 to 60 min. After another transient failure,
/// it sends none for 1 s, then 4 s, doubling to 30 s. Meanwhile it tries the store about every 10 s. A token
/// that was fetched without the store is stored once the store works again, within 10 min.
///
/// # Errors
///
/// [`fetch`](TokenProvider::fetch) returns the error of the inner provider, or of the process that sent the
/// request. [`ErrorKind::RateLimited`] means that the processes have used up the rate limit, and
/// [`ErrorKind::Timeout`] that another process has the lease until the deadline. A failed store is not an
/// error, except for a refresh ahead that waits for it ([`ErrorKind::Store`]); the cache retries that refresh.
///
/// # Cancel safety
///
/// A dropped fetch keeps its lease and its slot in the rate limit until they expire. The cache runs a fetch in
/// a task of its own, so a dropped request does not drop the fetch.
pub struct SharedTokenProvider<P> {
    shared: Arc<Shared<P>>,
}

pub(crate) struct Shared<P> {
    pub(crate) provider: P,
    pub(crate) store: Box<dyn DynStore>,
    pub(crate) breaker: CircuitBreaker,
    memory: Mutex<Memory>,
}

/// State that one fetch leaves to the next.
#[derive(Default)]
pub(crate) struct Memory {
    /// The last token, and the holder that minted it if the store has the token.
    last: Option<(HeaderValue, Option<String>)>,
    /// The number of tokens so far. The header does not identify one: a server may return the same token again,
    /// with another lifetime.
    tokens: u64,
    /// Set by a failed token request: the key of its credentials, the end of the backoff, and the failure.
    pause: Option<(Name, Instant, ErrorKind)>,
    /// The end of the backoff without the store. It may be later, to spread processes out.
    pub(crate) direct_after: Option<Instant>,
    /// Consecutive failures.
    pub(crate) failures: u32,
    /// The generation of the cache's token, and when its refresh ahead stops waiting for the store.
    refresh_at: Option<(u64, Instant)>,
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
    /// Returns counters and the state of the store. The cache takes the provider, so keep a clone to call this.
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
        // A panic cannot leave the fields inconsistent: none depends on another.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Returns the holder that minted this token, if known.
    pub(crate) fn minted_by(&self, token: Option<&AccessToken>) -> Option<String> {
        let (header, minted_by) = self.last.as_ref()?;
        minted_by
            .clone()
            .filter(|_| Some(header) == token.map(AccessToken::header_value))
    }

    /// Returns `true` if the last token has this number.
    pub(crate) fn is_last(&self, number: u64) -> bool {
        self.tokens == number
    }

    /// Returns the end of the backoff for the credentials of this key, and the failure that caused it.
    pub(crate) fn pause(&self, key: &Name, now: Instant) -> Option<(Instant, ErrorKind)> {
        let (paused, until, kind) = self.pause.as_ref()?;
        (paused == key && now < *until).then_some((*until, *kind))
    }

    /// Like [`pause`](Self::pause), for a token request without the store.
    pub(crate) fn pause_direct(&self, key: &Name, now: Instant) -> Option<(Instant, ErrorKind)> {
        let until = self.direct_after.filter(|until| now < *until)?;
        Some((until, self.failed_with(key)?))
    }

    /// Returns the failure of the last token request with the credentials of this key; `None` after a token.
    pub(crate) fn failed_with(&self, key: &Name) -> Option<ErrorKind> {
        let (failed, _, kind) = self.pause.as_ref()?;
        (failed == key).then_some(*kind)
    }

    /// Starts the backoff after a failed token request.
    pub(crate) fn failed(&mut self, key: &Name, until: Instant, kind: ErrorKind) {
        self.failures = self.failures.saturating_add(1);
        self.pause = Some((key.clone(), until, kind));
        self.direct_after = Some(until);
    }

    /// Records a token and ends the backoff. Returns the number of the token.
    pub(crate) fn succeeded(&mut self, token: &AccessToken, minted_by: Option<String>) -> u64 {
        self.last = Some((token.header_value().clone(), minted_by));
        (self.failures, self.pause) = (0, None);
        self.tokens += 1;
        self.tokens
    }

    /// Returns when a refresh ahead stops waiting for the store: after half of the lifetime that remained when it
    /// first waited.
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
