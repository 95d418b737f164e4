//! The time limit and the circuit breaker of a store.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use officernd_auth::clock::Clock;
use officernd_auth::{Error, ErrorKind};
use serde::Serialize;

use crate::clock::{later, timeout_at};
use crate::events;

/// The time limit of one operation.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the store is out of use after a failure.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(10);

/// Counters and the state of the store of a [`SharedTokenProvider`](crate::SharedTokenProvider).
///
/// ```
/// use officernd_auth::testing::ScriptedProvider;
/// use officernd_auth_store::testing::MemoryStore;
/// use officernd_auth::TokenCache;
/// use officernd_auth_store::SharedTokenProvider;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let provider = SharedTokenProvider::new(ScriptedProvider::new(), MemoryStore::new());
/// TokenCache::new(provider.clone()).warm_up().await?;
/// assert!(provider.status().available);
/// assert_eq!((provider.status().fetched, provider.status().taken), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Whether the store is in use. `false` from a failure until an operation succeeds, at least 10 s later.
    pub available: bool,
    /// Operations that failed or took longer than 3 s.
    pub failures: u64,
    /// The message of the last failure, with its causes.
    pub last_error: Option<String>,
    /// Tokens taken from the store.
    pub taken: u64,
    /// Token requests sent under a lease of the store.
    pub fetched: u64,
    /// Token requests sent without the store, because it was out of use.
    pub direct: u64,
}

#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Set by a failure. After this time, one operation tries the store again.
    open_until: Option<Instant>,
    counts: StoreStatus,
}

impl CircuitBreaker {
    /// Runs one operation of the store for up to 3 s. Returns `None` if it failed, or if the breaker is open.
    ///
    /// An operation that is dropped counts neither as a success nor as a failure.
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
                // This operation tries the store; the others continue without it.
                Some(_) => state.open_until = Some(later(now, OPEN_FOR)),
                None => {}
            }
        }
        let until = later(now, OPERATION_TIMEOUT);
        let result = timeout_at(clock, until, work).await.unwrap_or_else(|| {
            let message = "the token store did not reply in time";
            Err(Error::new(ErrorKind::Store, message))
        });
        match result {
            Ok(value) => {
                let is_back = self.lock().open_until.take().is_some();
                if is_back {
                    events::back(operation);
                }
                Some(value)
            }
            Err(error) => {
                // Emits the event before locking: a subscriber may read the status.
                let message = events::failed(operation, &error);
                let mut state = self.lock();
                state.open_until = Some(later(clock.now(), OPEN_FOR));
                state.counts.failures += 1;
                state.counts.last_error = Some(message);
                None
            }
        }
    }

    /// Returns when the store may be tried again; `None` if it is in use.
    pub(crate) fn open_until(&self) -> Option<Instant> {
        self.lock().open_until
    }

    /// Counts a token, or a token request, in the field of the status that has this name.
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
        // A panic cannot leave the fields inconsistent: none depends on another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
