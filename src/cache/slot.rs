//! The slot that every request reads: one pointer, replaced whole.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::schedule::{Life, Stage};
use crate::clock::Age;
use crate::sync::{AtomicBool, Guard, Ordering, Swap};
use crate::token::AccessToken;

/// A token with its life. Immutable but for the one thing that others find
/// out about it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) token: AccessToken,
    pub(super) life: Life,
    age: Age,
    rejected: AtomicBool,
}

impl Entry {
    pub(super) fn new(token: AccessToken, life: Life, age: Age) -> Self {
        Self {
            token,
            life,
            age,
            rejected: AtomicBool::new(false),
        }
    }

    pub(super) fn age(&self, now: Instant, wall: SystemTime) -> Duration {
        self.age.at(now, wall)
    }

    pub(super) fn stage(&self, now: Instant, wall: SystemTime) -> Stage {
        self.life.stage(self.age(now, wall))
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Whether this call was the first to say so.
    pub(super) fn reject(&self) -> bool {
        !self.rejected.swap(true, Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    entry: Swap<Entry>,
}

impl Slot {
    /// The entry for a request: a borrow, not a reference count.
    pub(super) fn load(&self) -> Guard<Entry> {
        self.entry.load()
    }

    /// The entry for the token path, to keep.
    pub(super) fn get(&self) -> Option<Arc<Entry>> {
        self.entry.load_full()
    }

    pub(super) fn publish(&self, entry: Entry) {
        self.entry.store(Some(Arc::new(entry)));
    }
}
