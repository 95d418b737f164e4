//! When a request has to look for something to start.

use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::sync::{AtomicU64, Ordering};

/// When there may be something to start, by both clocks.
pub(super) struct NextCheck {
    born: Now,
    /// Nanoseconds after `born`.
    monotonic: AtomicU64,
    wall: AtomicU64,
}

impl NextCheck {
    pub(super) fn new(born: Now) -> Self {
        let (monotonic, wall) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            born,
            monotonic,
            wall,
        }
    }

    pub(super) fn set(&self, at: Instant, now: Now) {
        let wall = now.wall + at.saturating_duration_since(now.monotonic);
        let (at, wall) = self.nanos(Now {
            monotonic: at,
            wall,
        });
        self.monotonic.store(at, Ordering::Relaxed);
        self.wall.store(wall, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        let (now, wall) = self.nanos(now);
        now >= self.monotonic.load(Ordering::Relaxed) || wall >= self.wall.load(Ordering::Relaxed)
    }

    fn nanos(&self, now: Now) -> (u64, u64) {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let monotonic = now.monotonic.saturating_duration_since(self.born.monotonic);
        let wall = now.wall.duration_since(self.born.wall).unwrap_or_default();
        (nanos(monotonic), nanos(wall))
    }
}
