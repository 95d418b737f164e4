use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, TokioClock, later};
use crate::error::Error;
use crate::fleet::{Holder, Lease, Spent, StoreKey, Stored, Terms, TokenStore};

/// A [`TokenStore`] in this process's memory: the model that other stores are
/// measured by. Clones share what is in it.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, ScriptedProvider};
/// use officernd_auth::{SharedTokenProvider, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
/// for _ in 0..2 {
///     let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
///     TokenCache::new(provider).warm_up().await?;
/// }
/// assert_eq!(endpoint.calls(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<Contents>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Contents {
    entries: HashMap<StoreKey, (Vec<u8>, Instant)>,
    leases: HashMap<StoreKey, (Holder, Instant)>,
    windows: HashMap<StoreKey, Vec<(Holder, Instant)>>,
}

impl MemoryStore {
    /// An empty store, on tokio's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            clock: Arc::new(TokioClock),
        }
    }

    /// The same on another clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Forgets everything, as a server that comes back without its data.
    pub fn clear(&self) {
        *self.lock() = Contents::default();
    }

    /// Every entry's bytes, as whoever reads the store gets to see them.
    #[must_use]
    pub fn entries(&self) -> Vec<Vec<u8>> {
        let contents = self.lock();
        contents
            .entries
            .values()
            .map(|(entry, _)| entry.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents without what has ended, and the time.
    fn now(&self) -> (MutexGuard<'_, Contents>, Instant) {
        let now = self.clock.now();
        let mut contents = self.lock();
        contents.entries.retain(|_, (_, until)| *until > now);
        contents.leases.retain(|_, (_, until)| *until > now);
        for places in contents.windows.values_mut() {
            places.retain(|(_, until)| *until > now);
        }
        contents.windows.retain(|_, places| !places.is_empty());
        (contents, now)
    }
}

impl TokenStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Stored>, Error> {
        let (contents, now) = self.now();
        let stored = contents.entries.get(key);
        Ok(stored
            .map(|(entry, until)| Stored::new(entry.clone(), until.saturating_duration_since(now))))
    }

    async fn save(
        &self,
        key: &StoreKey,
        entry: &[u8],
        life: Duration,
        holder: &Holder,
    ) -> Result<bool, Error> {
        let (mut contents, now) = self.now();
        if contents
            .leases
            .get(key)
            .is_some_and(|(other, _)| other != holder)
        {
            return Ok(false);
        }
        let entry = (entry.to_vec(), later(now, life));
        contents.entries.insert(key.clone(), entry);
        Ok(true)
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        holder: &Holder,
        limit: Duration,
    ) -> Result<Lease, Error> {
        let (mut contents, now) = self.now();
        match contents.leases.get(key) {
            Some((other, until)) if other != holder => {
                Ok(Lease::Busy(until.saturating_duration_since(now)))
            }
            _ => {
                let lease = (holder.clone(), later(now, limit));
                contents.leases.insert(key.clone(), lease);
                Ok(Lease::Held)
            }
        }
    }

    async fn release(&self, key: &StoreKey, holder: &Holder) -> Result<(), Error> {
        let (mut contents, _) = self.now();
        if contents
            .leases
            .get(key)
            .is_some_and(|(other, _)| other == holder)
        {
            contents.leases.remove(key);
        }
        Ok(())
    }

    async fn spend(&self, key: &StoreKey, ticket: &Holder, terms: Terms) -> Result<Spent, Error> {
        let (mut contents, now) = self.now();
        let places = contents.windows.entry(key.clone()).or_default();
        if places.iter().any(|(other, _)| other == ticket) {
            return Ok(Spent::Granted);
        }
        let most = usize::try_from(terms.requests).unwrap_or(usize::MAX);
        let until = later(now, terms.per.saturating_add(terms.out));
        if places.len() < most {
            places.push((ticket.clone(), until));
            return Ok(Spent::Granted);
        }
        let mut ends: Vec<Instant> = places.iter().map(|(_, until)| *until).collect();
        ends.sort_unstable();
        // With less allowed than there are, more than one has to end.
        let end = ends.get(places.len() - most).copied().unwrap_or(until);
        Ok(Spent::Wait(end.saturating_duration_since(now)))
    }

    async fn settle(&self, key: &StoreKey, ticket: &Holder, per: Duration) -> Result<(), Error> {
        let (mut contents, now) = self.now();
        let places = contents.windows.get_mut(key).into_iter().flatten();
        for (_, until) in places.filter(|(other, _)| other == ticket) {
            *until = later(now, per);
        }
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.lock();
        f.debug_struct("MemoryStore")
            .field("entries", &contents.entries.len())
            .field("leases", &contents.leases.len())
            .finish_non_exhaustive()
    }
}
