//! A store in memory, and a check for your own store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use officernd_auth::Error;
use officernd_auth::clock::{Clock, TokioClock};

pub use crate::conformance::check_store;
use crate::record::{Record, Window};
use crate::store::{Claim, Claimed, Finish, Name, TokenStore, whole_millis};

/// A [`TokenStore`] in memory. Clones share their content.
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
/// TokenCache::new(provider).warm_up().await?;
/// assert_eq!(store.entries().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    contents: Arc<Mutex<Contents>>,
    clock: Arc<dyn Clock>,
    /// Times are counted from here.
    created_at: Instant,
}

#[derive(Default)]
struct Contents {
    records: HashMap<Name, Record>,
    windows: HashMap<Name, Window>,
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            contents: Arc::default(),
            clock: Arc::new(TokioClock),
            created_at: TokioClock.now(),
        }
    }

    /// Sets the clock. Default: tokio's, which tests can pause.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.created_at = clock.now();
        self.clock = Arc::new(clock);
        self
    }

    /// Removes everything, like a server that restarts without its data.
    pub fn clear(&self) {
        *self.lock() = Contents::default();
    }

    /// Returns the sealed bytes of every entry.
    #[must_use]
    pub fn entries(&self) -> Vec<Vec<u8>> {
        let contents = self.lock();
        let records = contents.records.values();
        records.filter_map(Record::sealed).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        let contents = self.contents.lock();
        contents.unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation on a key and a window.
    fn with<T>(
        &self,
        key: &Name,
        window: &Name,
        operation: impl FnOnce(&mut Record, &mut Window, u64) -> T,
    ) -> T {
        let now = whole_millis(self.clock.now().saturating_duration_since(self.created_at));
        let contents = &mut *self.lock();
        let record = contents.records.entry(key.clone()).or_default();
        let window = contents.windows.entry(window.clone()).or_default();
        operation(record, window, now)
    }
}

impl TokenStore for MemoryStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        Ok(self.with(&claim.key, &claim.window, |record, window, now| {
            record.claim(window, claim, now)
        }))
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        Ok(
            self.with(&finish.key, &finish.window, |record, window, now| {
                record.finish(window, finish, now)
            }),
        )
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
