//! The store behind a time limit and a circuit breaker.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::{Clock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::observability;

/// No operation may take longer.
const LIMIT: Duration = Duration::from_millis(500);

/// So long the store is left alone after one that failed.
const BREAK: Duration = Duration::from_secs(10);

/// The store cannot be used now: go on without.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aside;

/// How a [`SharedTokenProvider`](crate::SharedTokenProvider) gets on with its
/// store.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, ScriptedProvider};
/// use officernd_auth::{SharedTokenProvider, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let store = MemoryStore::new();
/// let provider = SharedTokenProvider::new(ScriptedProvider::new(), store.clone());
/// TokenCache::new(provider.clone()).warm_up().await?;
/// let sibling = SharedTokenProvider::new(ScriptedProvider::new(), store);
/// TokenCache::new(sibling.clone()).warm_up().await?;
///
/// assert!(sibling.status().available);
/// assert_eq!((provider.status().fetched, sibling.status().taken), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Whether the store is used; `false` while it is left alone after a
    /// failure, and requests go on without it.
    pub available: bool,
    /// Operations that failed or took too long.
    pub failures: u64,
    /// What the last of them said.
    pub last_error: Option<String>,
    /// Tokens taken from a sibling.
    pub taken: u64,
    /// Fetches under a lease of the store.
    pub fetched: u64,
    /// Fetches without the store, since it could not be used.
    pub direct: u64,
}

/// Where a token comes from; the fields of [`StoreStatus`] say more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Taken,
    Fetched,
    Direct,
}

#[derive(Debug, Default)]
pub(super) struct Guard {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The breaker is open until then, or was, and nothing has worked since.
    open_until: Option<Instant>,
    counts: StoreStatus,
}

impl Guard {
    /// Runs one operation of the store, if the breaker lets it.
    pub(super) async fn run<T>(
        &self,
        clock: &dyn Clock,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Aside> {
        let now = clock.now();
        {
            let mut state = self.lock();
            match state.open_until {
                Some(until) if now < until => return Err(Aside),
                // One tries whether it is back; the others go on without.
                Some(_) => state.open_until = Some(later(now, 2 * LIMIT)),
                None => {}
            }
        }
        let result = match timeout_at(clock, later(now, LIMIT), work).await {
            Some(result) => result,
            None => Err(Error::new(
                ErrorKind::Store,
                "the token store did not answer within 500 ms",
            )),
        };
        let mut state = self.lock();
        match result {
            Ok(value) => {
                let back = state.open_until.take().is_some();
                drop(state);
                if back {
                    observability::store_back(operation);
                }
                Ok(value)
            }
            Err(error) => {
                state.open_until = Some(later(clock.now(), BREAK));
                state.counts.failures += 1;
                state.counts.last_error = Some(error.to_string());
                drop(state);
                observability::store_failed(operation, &error);
                Err(Aside)
            }
        }
    }

    /// A refresh has its token, or is about to ask the endpoint for it.
    pub(super) fn count(&self, source: Source) {
        let mut state = self.lock();
        let counts = &mut state.counts;
        let (count, name) = match source {
            Source::Taken => (&mut counts.taken, "taken"),
            Source::Fetched => (&mut counts.fetched, "fetched"),
            Source::Direct => (&mut counts.direct, "direct"),
        };
        *count += 1;
        drop(state);
        observability::store_served(name);
    }

    pub(super) fn status(&self) -> StoreStatus {
        let state = self.lock();
        StoreStatus {
            available: state.open_until.is_none(),
            ..state.counts.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every field stands for itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
