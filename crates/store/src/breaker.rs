//! The store behind a time limit and a circuit breaker.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use officernd_auth::clock::Clock;
use officernd_auth::{Error, ErrorKind};
use serde::Serialize;

use crate::clock::{later, timeout_at};
use crate::error::with_causes;
use crate::events;

/// The time limit of one operation.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the store is out of use after a failure.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(10);

/// How a [`SharedTokenProvider`](crate::SharedTokenProvider) uses its store.
///
/// ```
/// use officernd_auth::testing::ScriptedProvider;
/// use officernd_auth_store::testing::MemoryStore;
/// use officernd_auth::TokenCache;
/// use officernd_auth_store::SharedTokenProvider;
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
    /// Whether the store is in use. `false` from a failure until an operation works again, 10 s later at the
    /// earliest.
    pub available: bool,
    /// Operations that failed or took too long.
    pub failures: u64,
    /// The message of the last of them, with its causes.
    pub last_error: Option<String>,
    /// Tokens taken from the store.
    pub taken: u64,
    /// Fetches under a lease of the store.
    pub fetched: u64,
    /// Fetches without the store, because it was out of use.
    pub direct: u64,
}

#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Set by a failure. From then on one operation tries whether the store works again.
    open_until: Option<Instant>,
    counts: StoreStatus,
}

impl CircuitBreaker {
    /// Runs one operation of the store for up to 3 s. `None`: it failed, or the breaker is open; go on
    /// without the store. Dropped early, it says nothing about the store.
    pub(crate) async fn run<T>(
        &self,
        clock: &dyn Clock,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let now = clock.now();
        {
            let mut state = self.lock();
            match state.open_until {
                Some(until) if now < until => return None,
                // This one tries; the others go on without the store.
                Some(_) => state.open_until = Some(later(now, OPEN_FOR)),
                None => {}
            }
        }
        let until = later(now, OPERATION_TIMEOUT);
        let result = timeout_at(clock, until, work).await.unwrap_or_else(|| {
            let message = "the token store did not answer in time";
            Err(Error::new(ErrorKind::Store, message))
        });
        let mut state = self.lock();
        match result {
            Ok(value) => {
                let back = state.open_until.take().is_some();
                drop(state);
                if back {
                    events::back(operation);
                }
                Some(value)
            }
            Err(error) => {
                state.open_until = Some(later(clock.now(), OPEN_FOR));
                state.counts.failures += 1;
                state.counts.last_error = Some(with_causes(&error));
                drop(state);
                events::failed(operation, &error);
                None
            }
        }
    }

    /// Returns when the store may be tried again; `None` if it is in use.
    pub(crate) fn open_until(&self) -> Option<Instant> {
        self.lock().open_until
    }

    /// Counts a fetch that has its token, or that is about to ask for it, in a field of the status of this
    /// name.
    pub(crate) fn count(&self, name: &'static str, field: fn(&mut StoreStatus) -> &mut u64) {
        *field(&mut self.lock().counts) += 1;
        events::served(name);
    }

    pub(crate) fn status(&self) -> StoreStatus {
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
