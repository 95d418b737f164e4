//! Finds a cache by what a request in flight remembers of it.
//!
//! A request keeps eight bytes instead of a handle: two reference counts less
//! on every hit, for a look-up that only a 401 pays.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::core::Core;

/// The caches that live. Each takes itself off when it is dropped.
static CACHES: Mutex<(u32, BTreeMap<NonZeroU32, Weak<Core>>)> = Mutex::new((0, BTreeMap::new()));

/// Which token of which cache went out with a request. The field `known` has
/// spare values for the enum around it.
#[expect(unnameable_types, reason = "seen by sealed traits only")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    cache: NonZeroU32,
    /// The low three bytes: two tokens of one cache that could be mixed up are
    /// sixteen million refreshes apart.
    generation: [u8; 3],
    known: Known,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Known {
    Yes = 1,
}

impl Ticket {
    pub(super) fn new(cache: NonZeroU32, generation: u64) -> Self {
        let [low, middle, high, ..] = generation.to_le_bytes();
        Self {
            cache,
            generation: [low, middle, high],
            known: Known::Yes,
        }
    }

    pub(crate) fn generation(self) -> u64 {
        let [low, middle, high] = self.generation;
        u64::from_le_bytes([low, middle, high, 0, 0, 0, 0, 0])
    }

    pub(super) fn is_from(self, cache: NonZeroU32) -> bool {
        self.cache == cache
    }

    pub(super) fn is_of(self, generation: u64) -> bool {
        self == Self::new(self.cache, generation)
    }

    pub(super) fn cache(self) -> Option<Arc<Core>> {
        lock().1.get(&self.cache)?.upgrade()
    }
}

/// The number of a new cache, which is entered under it.
pub(super) fn enter(core: &Weak<Core>) -> NonZeroU32 {
    let mut caches = lock();
    let (last, caches) = &mut *caches;
    loop {
        *last = last.wrapping_add(1);
        let Some(number) = NonZeroU32::new(*last) else {
            continue;
        };
        if let Entry::Vacant(place) = caches.entry(number) {
            place.insert(Weak::clone(core));
            return number;
        }
    }
}

pub(super) fn leave(number: NonZeroU32) {
    lock().1.remove(&number);
}

fn lock() -> std::sync::MutexGuard<'static, (u32, BTreeMap<NonZeroU32, Weak<Core>>)> {
    CACHES.lock().unwrap_or_else(PoisonError::into_inner)
}
