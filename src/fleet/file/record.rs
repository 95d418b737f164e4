//! What one file holds, and what each operation makes of it. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::{Holder, LARGEST_ENTRY, LONGEST_LEASE, Lease, Spent, Stored, Terms, millis};

/// Times are milliseconds after the epoch, by the host's wall clock: the one
/// clock that all processes of a host share.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    entry: Option<Entry>,
    lease: Option<Place>,
    places: Vec<Place>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    sealed: String,
    until: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Place {
    holder: String,
    until: u64,
}

impl Record {
    /// Drops what has ended, and what no operation can have made.
    pub(super) fn sweep(&mut self, now: SystemTime) {
        let now = wall(now);
        let longest = now.saturating_add(millis(LONGEST_LEASE));
        self.entry.take_if(|entry| entry.until <= now);
        self.lease
            .take_if(|lease| lease.until <= now || lease.until > longest);
        self.places.retain(|place| place.until > now);
    }

    pub(super) fn load(&self, now: SystemTime) -> Option<Stored> {
        let entry = self.entry.as_ref()?;
        let bytes = STANDARD.decode(&entry.sealed).ok()?;
        let left = Duration::from_millis(entry.until.saturating_sub(wall(now)));
        (bytes.len() <= LARGEST_ENTRY).then(|| Stored::new(bytes, left))
    }

    pub(super) fn save(
        &mut self,
        entry: &[u8],
        life: Duration,
        holder: &Holder,
        now: SystemTime,
    ) -> bool {
        if self.is_leased_to_another(holder) {
            return false;
        }
        self.entry = Some(Entry {
            sealed: STANDARD.encode(entry),
            until: after(now, life),
        });
        true
    }

    pub(super) fn acquire(&mut self, holder: &Holder, limit: Duration, now: SystemTime) -> Lease {
        match &self.lease {
            Some(lease) if lease.holder != holder.as_str() => {
                let left = lease.until.saturating_sub(wall(now));
                Lease::Busy(Duration::from_millis(left))
            }
            _ => {
                self.lease = Some(Place {
                    holder: holder.as_str().to_owned(),
                    until: after(now, limit.min(LONGEST_LEASE)),
                });
                Lease::Held
            }
        }
    }

    pub(super) fn release(&mut self, holder: &Holder) -> bool {
        let ours = |lease: &mut Place| lease.holder == holder.as_str();
        self.lease.take_if(ours).is_some()
    }

    pub(super) fn spend(&mut self, ticket: &Holder, terms: Terms, now: SystemTime) -> Spent {
        let longest = terms.per.saturating_add(terms.out);
        // The wall clock was set back, or this is not ours.
        let far = after(now, longest.saturating_mul(2));
        self.places.retain(|place| place.until <= far);
        if self.place(ticket).is_some() {
            return Spent::Granted;
        }
        let most = usize::try_from(terms.requests).unwrap_or(usize::MAX);
        let until = after(now, longest);
        if self.places.len() < most {
            self.places.push(Place {
                holder: ticket.as_str().to_owned(),
                until,
            });
            return Spent::Granted;
        }
        let mut ends: Vec<u64> = self.places.iter().map(|place| place.until).collect();
        ends.sort_unstable();
        let end = ends.get(ends.len() - most).copied().unwrap_or(until);
        Spent::Wait(Duration::from_millis(end.saturating_sub(wall(now))))
    }

    pub(super) fn settle(&mut self, ticket: &Holder, per: Duration, now: SystemTime) -> bool {
        let until = after(now, per);
        let place = self.place(ticket);
        place.map(|place| place.until = until).is_some()
    }

    fn place(&mut self, ticket: &Holder) -> Option<&mut Place> {
        let mut places = self.places.iter_mut();
        places.find(|place| place.holder == ticket.as_str())
    }

    fn is_leased_to_another(&self, holder: &Holder) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.holder != holder.as_str())
    }
}

fn wall(now: SystemTime) -> u64 {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn after(now: SystemTime, duration: Duration) -> u64 {
    wall(now).saturating_add(millis(duration))
}
