//! The rules of a store, as pure functions: what is saved under one key and in
//! one window, and what each operation makes of it. `FileStore` and
//! `MemoryStore` hold these records; redis/script.rs says the same in Lua.
//!
//! Times are milliseconds of one clock that all processes share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::{
    Claim, Claimed, Finish, MAX_ENTRY_SIZE, Name, StoredEntry, millis, whole_millis,
};

/// More places than any window has: bounds what is kept of a store that was
/// written to by something else.
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
        self.drop_ended(now, lease);
        if let Some(entry) = self.unseen_entry(claim.seen.as_ref(), now) {
            return Claimed::Entry(entry);
        }
        let holder = claim.holder.as_str();
        if let Some(other) = self.lease.as_ref().filter(|other| other.holder != holder) {
            return Claimed::Leased(until(other.until, now));
        }
        window.drop_ended(now, lease.saturating_add(per));
        let wait = match claim.limits.requests {
            Some(requests) => window.wait(holder, requests, lease.saturating_add(per), now),
            None => 0,
        };
        if wait > 0 || !claim.may_fetch {
            return Claimed::RateLimited(Duration::from_millis(wait));
        }
        if claim.limits.requests.is_some() {
            window.take(holder, now.saturating_add(lease).saturating_add(per));
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
        let lease = self.lease.take_if(|lease| lease.holder == holder);
        if lease.is_none_or(|lease| lease.until <= now) {
            let entry = self.entry.as_ref();
            return finish.entry.is_some() && entry.is_some_and(|entry| entry.id == holder);
        }
        if let Some(entry) = &finish.entry {
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
        let id = Name::parse(&entry.id)?;
        let left = until(entry.until, now);
        (Some(&id) != seen).then(|| StoredEntry::new(id, entry.sealed.clone(), left))
    }

    /// Drops what has ended, and what no operation can have made.
    fn drop_ended(&mut self, now: u64, lease: u64) {
        self.entry.take_if(|entry| {
            entry.until <= now
                || entry.sealed.len() > MAX_ENTRY_SIZE
                || Name::parse(&entry.id).is_none()
        });
        let longest = now.saturating_add(lease);
        self.lease
            .take_if(|lease| lease.until <= now || lease.until > longest);
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

    /// Drops places that have ended and shortens those that end later than any
    /// request can: the clock was set back, or something else wrote them.
    fn drop_ended(&mut self, now: u64, longest: u64) {
        let longest = now.saturating_add(longest);
        self.places.retain(|place| place.until > now);
        self.places.truncate(MAX_PLACES);
        for place in &mut self.places {
            place.until = place.until.min(longest);
        }
    }

    /// How long until the holder can have a place; zero if it has one.
    fn wait(&self, holder: &str, requests: u32, longest: u64, now: u64) -> u64 {
        let others = self.places.iter().filter(|place| place.holder != holder);
        let mut ends: Vec<u64> = others.map(|place| place.until).collect();
        if ends.len() < self.places.len() {
            return 0;
        }
        let requests = usize::try_from(requests).unwrap_or(usize::MAX);
        let Some(surplus) = ends.len().checked_sub(requests) else {
            return 0;
        };
        ends.sort_unstable();
        match ends.get(surplus) {
            Some(end) => end.saturating_sub(now),
            None => longest,
        }
    }

    fn take(&mut self, holder: &str, until: u64) {
        self.places.retain(|place| place.holder != holder);
        if self.places.len() < MAX_PLACES {
            let holder = holder.to_owned();
            self.places.push(Place { holder, until });
        }
    }

    fn free(&mut self, holder: &str, until: u64, now: u64) {
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

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
