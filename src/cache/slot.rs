//! The slot that every request reads: one pointer, replaced as a whole.
//!
//! ARCHITECTURE.md, "The hit path", gives the reasons for its shape.

use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use http::HeaderValue;

use super::TokenId;
use super::lifetime::IssuedToken;
use crate::clock::{self, Clock, runs_with_the_system};
use crate::sync::{AtomicU64, AtomicUsize, Guard, Ordering, Swap};

/// A token with its lifetime, and the header values that requests copy.
#[derive(Debug)]
pub(super) struct CachedToken {
    /// For the first thread that asks. Most caches of many organizations are
    /// used by one thread.
    first: Shard,
    /// The number of that thread; 0 before there is one.
    first_thread: AtomicUsize,
    /// For all threads, once a second one has asked.
    shards: OnceLock<Box<[Alone]>>,
    pub(super) issued: Arc<IssuedToken>,
}

/// What a look at both clocks says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Requests carry it, and nothing is due: believed for one tick.
    Fresh,
    /// Requests carry it, and the next one looks again.
    Usable,
    Unusable,
}

/// What one thread copies to a request.
#[derive(Debug)]
struct Shard {
    header: TokenHeader,
    /// The tick in which this thread last found the token fresh by both clocks.
    fresh_at: AtomicU64,
    /// How many requests may believe that; at first none.
    uses_left: AtomicUsize,
}

/// A shard on cache lines of its own: threads that write to one line slow each
/// other down.
#[derive(Debug)]
#[repr(align(128))]
struct Alone(Shard);

/// A header value, and the token that it is made of.
#[derive(Debug)]
pub(crate) struct TokenHeader {
    pub(crate) value: HeaderValue,
    pub(crate) id: Arc<TokenId>,
}

/// More threads than this share shards: a token takes at most about 12 KiB.
const MAX_SHARDS: usize = 8;

/// At most so many requests of a thread believe one look: so a wall clock that
/// stands still, as under `faketime`, keeps no token alive.
const MAX_USES: usize = 1023;

impl Shard {
    fn new(value: HeaderValue, id: Arc<TokenId>) -> Self {
        let header = TokenHeader { value, id };
        Self {
            header,
            fresh_at: AtomicU64::new(0),
            uses_left: AtomicUsize::new(0),
        }
    }
}

impl CachedToken {
    pub(super) fn new(id: Arc<TokenId>, issued: Arc<IssuedToken>) -> Self {
        Self {
            first: Shard::new(issued.token.header_value().clone(), id),
            first_thread: AtomicUsize::new(0),
            shards: OnceLock::new(),
            issued,
        }
    }

    /// The header for one request, if it may carry this token. `look` reads
    /// both clocks.
    ///
    /// That happens once in a tick, and again after [`MAX_USES`]. An equal tick
    /// says that less than one tick has passed since, by either clock, if the
    /// wall clock runs: a suspend, or a step of it, changes the tick.
    #[inline(always)]
    pub(super) fn header(
        &self,
        clock: &dyn Clock,
        look: impl FnOnce() -> Verdict,
    ) -> Option<&TokenHeader> {
        self.header_at(clock::tick(), clock, look)
    }

    #[inline(always)]
    fn header_at(
        &self,
        tick: u64,
        clock: &dyn Clock,
        look: impl FnOnce() -> Verdict,
    ) -> Option<&TokenHeader> {
        let shard = self.shard();
        match shard.uses_left.load(Ordering::Relaxed).checked_sub(1) {
            Some(left) if shard.fresh_at.load(Ordering::Relaxed) == tick => {
                // Not a `fetch_sub`: threads that share a shard may miscount.
                shard.uses_left.store(left, Ordering::Relaxed);
            }
            _ => {
                let verdict = look();
                if verdict == Verdict::Unusable {
                    return None;
                }
                // Ticks are the system's: they say nothing of a clock that is not.
                let believed = verdict == Verdict::Fresh && tick != clock::NO_TICK;
                if believed && runs_with_the_system(clock) {
                    shard.fresh_at.store(tick, Ordering::Relaxed);
                    shard.uses_left.store(MAX_USES, Ordering::Relaxed);
                }
            }
        }
        Some(&shard.header)
    }

    #[inline(always)]
    fn shard(&self) -> &Shard {
        let thread = thread_number();
        match self.shards.get() {
            Some(shards) => nth(shards, thread).unwrap_or(&self.first),
            None if self.first_thread.load(Ordering::Relaxed) == thread => &self.first,
            None => self.claim_shard(thread),
        }
    }

    /// The first look of a thread while there is one shard.
    #[cold]
    fn claim_shard(&self, thread: usize) -> &Shard {
        let order = Ordering::Relaxed;
        match self.first_thread.compare_exchange(0, thread, order, order) {
            Ok(_) => &self.first,
            Err(_) => nth(self.make_shards(), thread).unwrap_or(&self.first),
        }
    }

    fn make_shards(&self) -> &[Alone] {
        self.shards.get_or_init(|| {
            let threads = available_parallelism().map_or(1, usize::from);
            // A power of two, so that `nth` takes no division; twice the
            // threads, so that few of them share one.
            let count = (2 * threads).next_power_of_two().min(MAX_SHARDS);
            let shard = |_| {
                let value = self.issued.token.fresh_header_value();
                Alone(Shard::new(value, self.first.header.id.copy()))
            };
            (0..count).map(shard).collect()
        })
    }

    /// Makes shards at once if the token before this one needed them: so a
    /// request pays for that only once in the life of a cache.
    pub(super) fn prepare_for_threads_of(&self, earlier: &Self) {
        if earlier.shards.get().is_some() {
            self.make_shards();
        }
    }

    pub(super) fn id(&self) -> &Arc<TokenId> {
        &self.first.header.id
    }

    /// A response to this token was a 401, or a 2xx.
    pub(super) fn doubt(&self, doubted: bool) {
        self.id().doubt(doubted);
        for Alone(shard) in self.shards.get().into_iter().flatten() {
            shard.header.id.doubt(doubted);
        }
    }
}

#[inline(always)]
fn nth(shards: &[Alone], thread: usize) -> Option<&Shard> {
    let Alone(shard) = shards.get(thread & (shards.len() - 1))?;
    Some(shard)
}

/// Alone on its cache lines: all threads read it, and its neighbors are written.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Slot {
    token: Swap<CachedToken>,
    /// Counts the tokens, so that a `SlotReader` knows by one load whether it
    /// has the current one.
    version: AtomicU64,
}

impl Slot {
    /// The token for one request: a borrow, not a reference count.
    pub(super) fn load(&self) -> Guard<CachedToken> {
        self.token.load()
    }

    /// The token to keep.
    pub(super) fn get(&self) -> Option<Arc<CachedToken>> {
        self.token.load_full()
    }

    pub(super) fn publish(&self, token: CachedToken) {
        if let Some(earlier) = self.get() {
            token.prepare_for_threads_of(&earlier);
        }
        self.token.store(Some(Arc::new(token)));
        // After the token: a reader that sees the version sees the token too.
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The current token as one service holds it.
///
/// A clone starts empty, and the first request of each reads the slot itself:
/// a service that is cloned for every request touches no shared count.
#[derive(Debug, Default)]
pub(crate) struct SlotReader {
    token: Option<Arc<CachedToken>>,
    version: u64,
    used: bool,
}

impl SlotReader {
    /// The token, if this reader has the current one.
    #[inline]
    pub(super) fn current(&self, slot: &Slot) -> Option<&CachedToken> {
        let current = slot.version.load(Ordering::Acquire) == self.version;
        self.token.as_deref().filter(|_| current)
    }

    /// Keeps the current token, from the second time on, and returns it.
    ///
    /// The request carries the token that is kept. One that is loaded
    /// afterwards may be newer: then the next request would go back.
    pub(super) fn update(&mut self, slot: &Slot) -> Option<&CachedToken> {
        if !self.used {
            self.used = true;
            return None;
        }
        // Before the token: one that is published in between is loaded again.
        self.version = slot.version.load(Ordering::Acquire);
        self.token = slot.get();
        self.token.as_deref()
    }
}

impl Clone for SlotReader {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A small number of this thread's own, from 1.
#[inline]
fn thread_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.try_with(|number| *number).unwrap_or(1)
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
