//! The slot that every request reads: one pointer, replaced whole.
//!
//! Why it looks as it does is told in ARCHITECTURE.md, "The hit path".

use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

use super::lifetime::{Life, Stage};
use super::registry::Ticket;
use crate::clock::{Age, Clock, runs_with_the_system};
use crate::sync::{AtomicBool, AtomicU64, Guard, Ordering, Swap};
use crate::token::AccessToken;

/// A token with its life. Immutable but for what others find out about it.
#[derive(Debug)]
// In this order: what a hit reads stands together.
#[repr(C)]
pub(super) struct Entry {
    pub(super) ticket: Ticket,
    shards: Box<[Shard]>,
    rejected: AtomicBool,
    age: Age,
    pub(super) life: Life,
    pub(super) token: AccessToken,
}

/// One thread's copy of the header value, alone on its cache lines: threads
/// that count references to one value fight over its count.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    value: HeaderValue,
    /// The tick at which this thread last found the token fresh by both
    /// clocks; 0 is never.
    fresh_at: AtomicU64,
}

/// More threads than this share copies: a token stays within 8 KiB or so.
const MOST_SHARDS: usize = 8;

impl Entry {
    pub(super) fn new(cache: NonZeroU32, token: AccessToken, life: Life, age: Age) -> Self {
        let threads = available_parallelism().map_or(1, usize::from);
        // A power of two, so that a thread's own is found without a division;
        // twice the threads, so that few of them meet.
        let shards = (2 * threads).next_power_of_two().min(MOST_SHARDS);
        let shards = (0..shards)
            .map(|_| Shard {
                value: token.fresh_header_value(),
                fresh_at: AtomicU64::new(0),
            })
            .collect();
        Self {
            ticket: Ticket::new(cache, token.generation()),
            token,
            life,
            age,
            rejected: AtomicBool::new(false),
            shards,
        }
    }

    /// The header value, if the token is fresh and nothing is to be done.
    ///
    /// Both clocks are read once in a tick. An equal tick says that less than
    /// one has passed since, by either clock: a suspend, or a step of the wall
    /// clock, changes it.
    #[inline(always)]
    pub(super) fn fresh(&self, clock: &dyn Clock) -> Option<&HeaderValue> {
        let shard = self.shards.get(thread_number() & (self.shards.len() - 1))?;
        let tick = clock.tick();
        if tick.is_some_and(|tick| shard.fresh_at.load(Ordering::Relaxed) == tick.get()) {
            return Some(&shard.value);
        }
        if self.stage(clock.now(), clock.wall()) != Stage::Fresh || self.is_rejected() {
            return None;
        }
        // Ticks are the system's: they say nothing of a clock that is not.
        if let Some(tick) = tick.filter(|_| runs_with_the_system(clock)) {
            shard.fresh_at.store(tick.get(), Ordering::Relaxed);
        }
        Some(&shard.value)
    }

    /// The header value for one who knows that the token may be used.
    pub(super) fn value(&self) -> &HeaderValue {
        self.token.header_value()
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

/// Alone on its cache lines: it is read by all, and its neighbours are written.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Slot {
    /// What tells whether the entry is fresh: on the same line.
    pub(super) clock: Arc<dyn Clock>,
    entry: Swap<Entry>,
    /// Counts the entries, so that who holds one knows it for the current one
    /// by a look at one word.
    version: AtomicU64,
}

impl Slot {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            entry: Swap::default(),
            version: AtomicU64::new(0),
        }
    }

    /// The entry for one request: a borrow, not a reference count.
    pub(super) fn load(&self) -> Guard<Entry> {
        self.entry.load()
    }

    /// The entry to keep.
    pub(super) fn get(&self) -> Option<Arc<Entry>> {
        self.entry.load_full()
    }

    pub(super) fn publish(&self, entry: Entry) {
        self.entry.store(Some(Arc::new(entry)));
        // After the entry: who sees the version sees the entry too.
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The current entry as one service holds it.
///
/// A clone starts empty, and the first request of each goes by the slot
/// itself: a service that is cloned for every request touches no shared count.
#[expect(unnameable_types, reason = "seen by sealed traits only")]
#[derive(Debug, Default)]
pub struct Reader {
    entry: Option<Arc<Entry>>,
    version: u64,
    used: bool,
}

impl Reader {
    /// The entry, if this reader has the current one.
    #[inline]
    pub(super) fn kept(&self, slot: &Slot) -> Option<&Entry> {
        let current = slot.version.load(Ordering::Acquire) == self.version;
        self.entry.as_deref().filter(|_| current)
    }

    /// Keeps the current entry, from the second time on.
    pub(super) fn keep(&mut self, slot: &Slot) {
        if self.used {
            let version = slot.version.load(Ordering::Acquire);
            self.entry = slot.get();
            self.version = version;
        }
        self.used = true;
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A small number of this thread's own.
#[inline]
fn thread_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.try_with(|number| *number).unwrap_or_default()
}
