//! The rules of a store, as pure functions: what is saved under one key and in one window, and what each
//! operation makes of it. `FileStore` and `MemoryStore` hold these records. redis/script.rs has the same
//! rules in Lua, and tests/fleet/differential.rs compares the two.
//!
//! Times are milliseconds of one clock that all processes share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{
    Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, StoredEntry, millis, whole_millis,
};

/// The most places that are kept, whatever limit a caller has.
const MAX_PLACES: usize = 1000;

/// The content of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    entry: Option<Entry>,
    lease: Option<Place>,
}

/// The requests that count against one endpoint's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    places: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    id: String,
    #[serde(with = "base64_text")]
    sealed: Vec<u8>,
    until: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Place {
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
        // No holder made a lease that has more left than a lease lasts.
        let longest = now.saturating_add(lease);
        let mut other = self.lease.iter().filter(|other| other.holder != holder);
        if let Some(other) = other.find(|other| other.until <= longest) {
            return Claimed::Leased(until(other.until, now));
        }
        let mut wait = 0;
        let longest = longest.saturating_add(per);
        if let Some(requests) = claim.limits.requests {
            window.places.retain(|place| place.until > now);
            // The clock was set back, or something else wrote them.
            for place in &mut window.places {
                place.until = place.until.min(longest);
            }
            wait = window.wait(holder, requests, longest, now);
        }
        if wait > 0 || !claim.may_fetch {
            return Claimed::RateLimited(Duration::from_millis(wait));
        }
        if claim.limits.requests.is_some() {
            window.take(holder, longest);
        }
        self.lease = Some(Place {
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
                sealed: entry.sealed.clone(),
                until: now.saturating_add(millis(entry.expires_in)),
            });
        }
        true
    }

    /// Brings every end closer by one, for the exploration of the protocol.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn age(&mut self, now: u64) {
        if let Some(entry) = &mut self.entry {
            entry.until -= 1;
        }
        self.entry.take_if(|entry| entry.until <= now);
        if let Some(lease) = &mut self.lease {
            // An ended lease may stay: each operation has to notice.
            lease.until = now.max(lease.until - 1);
        }
    }

    /// The bytes of the entry, for tests.
    #[cfg(feature = "testing")]
    pub(crate) fn sealed(&self) -> Option<&[u8]> {
        self.entry.as_ref().map(|entry| &*entry.sealed)
    }

    fn unseen_entry(&self, seen: Option<&Name>, now: u64) -> Option<StoredEntry> {
        let entry = self.entry.as_ref()?;
        let id = Name::parse(&entry.id).filter(|id| Some(id) != seen)?;
        let is_sound = entry.sealed.len() <= MAX_ENTRY_SIZE;
        is_sound.then(|| StoredEntry::new(id, entry.sealed.clone(), until(entry.until, now)))
    }
}

impl Window {
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn age(&mut self, now: u64) {
        for place in &mut self.places {
            place.until -= 1;
        }
        self.places.retain(|place| place.until > now);
    }

    /// How long until the holder can have a place; zero if it has one.
    fn wait(&self, holder: &str, requests: u32, longest: u64, now: u64) -> u64 {
        if self.places.iter().any(|place| place.holder == holder) {
            return 0;
        }
        let mut ends: Vec<u64> = self.places.iter().map(|place| place.until).collect();
        let requests = usize::try_from(requests).unwrap_or(usize::MAX);
        let Some(surplus) = ends.len().checked_sub(requests) else {
            return 0;
        };
        ends.sort_unstable();
        ends.get(surplus).unwrap_or(&longest).saturating_sub(now)
    }

    fn take(&mut self, holder: &str, until: u64) {
        self.places.retain(|place| place.holder != holder);
        if self.places.len() < MAX_PLACES {
            let holder = holder.to_owned();
            self.places.push(Place { holder, until });
        }
    }

    /// Changes when the holder's place ends. A place that has ended stays so: another holder may have it by
    /// now.
    fn free(&mut self, holder: &str, until: u64, now: u64) {
        self.places.retain(|place| place.until > now);
        for place in &mut self.places {
            if place.holder == holder {
                place.until = until;
            }
        }
        self.places.retain(|place| place.until > now);
    }
}

fn until(end: u64, now: u64) -> Duration {
    Duration::from_millis(end.saturating_sub(now))
}

/// Bytes as text in JSON.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
