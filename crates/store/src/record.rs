//! The rules of a store, as pure functions on the content of one key and one window. `FileStore` and
//! `MemoryStore` use them. redis/script.rs has the same rules in Lua, and tests/fleet/differential.rs compares
//! the two.
//!
//! Times are milliseconds of one clock that all processes share.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::store::{
    Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, StoredEntry, millis, whole_millis,
};

/// The maximum number of slots, regardless of the caller's limit.
const MAX_SLOTS: usize = 1000;

/// The content of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    entry: Option<Entry>,
    lease: Option<Slot>,
}

/// The requests that count against one endpoint's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    id: String,
    /// In base64.
    sealed: String,
    until: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Slot {
    holder: String,
    until: u64,
}

impl Record {
    /// See [`TokenStore::claim`](super::TokenStore::claim).
    pub(crate) fn claim(&mut self, window: &mut Window, claim: &Claim, now: u64) -> Claimed {
        let (lease, per) = (millis(claim.limits.lease), millis(claim.limits.per));
        let holder = claim.holder.as_str();
        self.entry.take_if(|entry| entry.until <= now);
        self.lease.take_if(|lease| lease.until <= now);
        if let Some(entry) = self.unseen_entry(claim.seen.as_ref(), now) {
            return Claimed::Entry(entry);
        }
        // No holder gets a lease with more time left than `longest`, so such a lease is ignored.
        let longest = now.saturating_add(lease);
        let mut other = self.lease.iter().filter(|other| other.holder != holder);
        if let Some(other) = other.find(|other| other.until <= longest) {
            return Claimed::Leased(until(other.until, now));
        }
        let mut wait = 0;
        let longest = longest.saturating_add(per);
        if let Some(requests) = claim.limits.requests {
            window.slots.retain(|slot| slot.until > now);
            // Slots end later if the clock was set back, or if another program wrote them.
            for slot in &mut window.slots {
                slot.until = slot.until.min(longest);
            }
            wait = window.wait(holder, requests, longest, now);
        }
        if wait > 0 || !claim.may_fetch {
            return Claimed::RateLimited(Duration::from_millis(wait));
        }
        if claim.limits.requests.is_some() {
            window.take(holder, longest);
        }
        self.lease = Some(Slot {
            holder: holder.to_owned(),
            until: now.saturating_add(lease),
        });
        Claimed::Granted
    }

    /// See [`TokenStore::finish`](super::TokenStore::finish).
    pub(crate) fn finish(&mut self, window: &mut Window, finish: &Finish, now: u64) -> bool {
        let holder = finish.holder.as_str();
        let frees_at = now.saturating_add(whole_millis(finish.frees_after));
        window.free(holder, frees_at, now);
        let new = finish.entry.as_ref().filter(|it| !it.sealed.is_empty());
        let lease = self.lease.take_if(|lease| lease.holder == holder);
        if lease.is_none_or(|lease| lease.until <= now) {
            let saved = self.entry.as_ref().filter(|it| it.until > now);
            return new.is_some() && saved.is_some_and(|saved| saved.id == holder);
        }
        if let Some(entry) = new {
            self.entry = Some(Entry {
                id: holder.to_owned(),
                sealed: STANDARD.encode(&entry.sealed),
                until: now.saturating_add(millis(entry.expires_in)),
            });
        }
        true
    }

    /// Brings every expiry closer by one, for the exploration of the protocol.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn age(&mut self, now: u64) {
        if let Some(entry) = &mut self.entry {
            entry.until -= 1;
        }
        self.entry.take_if(|entry| entry.until <= now);
        if let Some(lease) = &mut self.lease {
            // Keeps an ended lease: each operation must check.
            lease.until = now.max(lease.until - 1);
        }
    }

    /// Returns the bytes of the entry, for tests.
    #[cfg(feature = "testing")]
    pub(crate) fn sealed(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.entry.as_ref()?.sealed).ok()
    }

    fn unseen_entry(&self, seen: Option<&Name>, now: u64) -> Option<StoredEntry> {
        let entry = self.entry.as_ref()?;
        let id = Name::parse(&entry.id).filter(|id| Some(id) != seen)?;
        let sealed = STANDARD.decode(&entry.sealed).ok()?;
        let is_valid = sealed.len() <= MAX_ENTRY_SIZE;
        is_valid.then(|| StoredEntry::new(id, sealed, until(entry.until, now)))
    }
}

impl Window {
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn age(&mut self, now: u64) {
        for slot in &mut self.slots {
            slot.until -= 1;
        }
        self.slots.retain(|slot| slot.until > now);
    }

    /// Returns how long until the holder can have a slot; zero if it has one.
    fn wait(&self, holder: &str, requests: u32, longest: u64, now: u64) -> u64 {
        if self.slots.iter().any(|slot| slot.holder == holder) {
            return 0;
        }
        let mut ends: Vec<u64> = self.slots.iter().map(|slot| slot.until).collect();
        let requests = usize::try_from(requests).unwrap_or(usize::MAX);
        let Some(surplus) = ends.len().checked_sub(requests) else {
            return 0;
        };
        ends.sort_unstable();
        ends.get(surplus).unwrap_or(&longest).saturating_sub(now)
    }

    fn take(&mut self, holder: &str, until: u64) {
        self.slots.retain(|slot| slot.holder != holder);
        if self.slots.len() < MAX_SLOTS {
            let holder = holder.to_owned();
            self.slots.push(Slot { holder, until });
        }
    }

    /// Changes when the holder's slot ends. A slot that has ended is not extended: another holder may have it.
    fn free(&mut self, holder: &str, until: u64, now: u64) {
        self.slots.retain(|slot| slot.until > now);
        for slot in &mut self.slots {
            if slot.holder == holder {
                slot.until = until;
            }
        }
        self.slots.retain(|slot| slot.until > now);
    }
}

fn until(end: u64, now: u64) -> Duration {
    Duration::from_millis(end.saturating_sub(now))
}
