//! Which cache may send a token request now, and when the others may. Pure.

use std::fmt;
use std::time::{Duration, Instant};

use super::capacity::Capacity;
use super::closures::{Client, Closures};
use super::line::{Class, Line, Place, Rank};
use super::{Standing, Urgency};
use crate::clock::later;

/// A free request is held back for a cache that was promised it for this long
/// after the promised time.
const HELD_FOR: Duration = Duration::from_secs(5);

/// No answer sends a cache away for less: a look at the window that leads to
/// the next look costs time.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// Beside the first few that may be served, so many are woken by a change.
const WOKEN_BEYOND_FREE: usize = 5;

/// One cache's wish to send a token request.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) applicant: u64,
    pub(super) client: &'a Client,
    pub(super) standing: Standing,
    pub(super) urgency: Urgency,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send, and report when it is answered.
    Granted(u64),
    /// Not now. A request is expected to be free at this time, which is later
    /// than now; a change may bring it forward.
    RetryAt(Instant),
}

pub(super) struct Window {
    /// `None` is unlimited.
    capacity: Option<Capacity>,
    line: Line,
    closures: Closures,
    next_id: u64,
    last_now: Option<Instant>,
}

impl Window {
    pub(super) fn new(limit: Option<(u32, Duration)>) -> Self {
        Self {
            capacity: limit.map(|(requests, per)| Capacity::new(requests, per)),
            line: Line::default(),
            closures: Closures::default(),
            next_id: 0,
            last_now: None,
        }
    }

    #[cfg(feature = "store")]
    pub(super) fn limit(&self) -> Option<(u32, Duration)> {
        let Capacity { requests, per, .. } = self.capacity.as_ref()?;
        Some((u32::try_from(*requests).unwrap_or(u32::MAX), *per))
    }

    /// May this cache send now? If not, it waits in its place in the line, until
    /// it is granted a request, [refused](Self::refuse) or [leaves](Self::leave).
    pub(super) fn try_acquire(&mut self, wish: &Wish<'_>, now: Instant) -> Decision {
        self.forget(now);
        let closed_until = self.closures.closed_until(wish.client, now);
        let Some(capacity) = &self.capacity else {
            return match closed_until {
                Some(until) => Decision::RetryAt(until),
                None => self.grant(wish, now),
            };
        };
        let promise = self.line.promise_of(wish.applicant);
        let rank = self.line.enter(
            wish.applicant,
            wish.client,
            wish.standing,
            wish.urgency,
            now,
        );
        let expected = match rank {
            Some(rank) => {
                if closed_until.is_none() && self.has_room_for(capacity, rank, now) {
                    let due = promise.map_or(now, |promise| promise.min(now));
                    return self.grant(wish, due);
                }
                let expected = self.expected(capacity, rank, now);
                self.line.expect(wish.applicant, expected);
                expected
            }
            // The line is full: the turn after all that have a place.
            None => capacity.expected(self.line.len(), now),
        };
        let expected = expected.max(later(now, MIN_WAIT));
        Decision::RetryAt(closed_until.map_or(expected, |closed| closed.max(expected)))
    }

    fn grant(&mut self, wish: &Wish<'_>, due: Instant) -> Decision {
        self.line.leave(wish.applicant);
        self.next_id += 1;
        if let Some(capacity) = &mut self.capacity {
            capacity.send(self.next_id, due, wish.standing.failing);
        }
        Decision::Granted(self.next_id)
    }

    /// The cache is sent away and promised a request at this time. It keeps its
    /// place.
    pub(super) fn refuse(&mut self, applicant: u64, promise: Instant, now: Instant) {
        if let Some(capacity) = &self.capacity {
            self.line
                .absent(applicant, Some(promise), now, capacity.per);
        }
    }

    /// The cache stops waiting, and may come back.
    pub(super) fn leave(&mut self, applicant: u64, now: Instant) {
        if let Some(capacity) = &self.capacity {
            self.line.absent(applicant, None, now, capacity.per);
        }
    }

    /// The cache is gone.
    pub(super) fn dequeue(&mut self, applicant: u64) {
        self.line.leave(applicant);
    }

    /// The endpoint answered 429 to this client.
    pub(super) fn close(&mut self, client: &Client, until: Instant, now: Instant) {
        self.closures.close(client, until, now);
    }

    /// A request that was granted is over, however it ended.
    pub(super) fn answered(&mut self, id: u64, now: Instant) {
        if let Some(capacity) = &mut self.capacity {
            capacity.answered(id, now);
        }
    }

    /// A request that was granted was not sent after all.
    pub(super) fn not_sent(&mut self, id: u64) {
        if let Some(capacity) = &mut self.capacity {
            capacity.not_sent(id);
        }
    }

    /// The waiting caches that a change may concern, first ones first.
    pub(super) fn next_in_line(&self) -> impl Iterator<Item = u64> {
        let free = self.capacity.as_ref().map_or(0, Capacity::free);
        let woken = free.saturating_add(WOKEN_BEYOND_FREE);
        self.line.present().take(woken)
    }

    /// Whether nothing would be lost with this window, which no cache has: a
    /// place in the line and a request in flight hold it.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.forget(now);
        let unused = self.capacity.as_ref().is_none_or(Capacity::is_unused);
        unused && self.closures.is_empty()
    }

    /// Whether one of the free requests is this rank's: after those that wait
    /// before it, and without breaking a promise to one that is away.
    fn has_room_for(&self, capacity: &Capacity, rank: Rank, now: Instant) -> bool {
        let free = capacity.free();
        let open = |place: &&Place| self.closures.closed_until(&place.client, now).is_none();
        let waiting = self
            .line
            .present_before(rank)
            .filter(open)
            .take(free)
            .count();
        if waiting >= free {
            return false;
        }
        if rank.class == Class::Failing && !self.has_room_for_failing(capacity, rank, now) {
            return false;
        }
        let left = free - waiting - 1;
        let owed = self.promised_soon(capacity, HELD_FOR, now);
        let owed = owed.filter(|(_, place)| place.rank < rank);
        owed.enumerate()
            .all(|(earlier, (promise, _))| earlier < left + capacity.freed_by(promise))
    }

    /// Failing caches leave one request free, and have no more than one while
    /// a healthy cache waits.
    fn has_room_for_failing(&self, capacity: &Capacity, rank: Rank, now: Instant) -> bool {
        if capacity.free() < 2 && capacity.requests > 1 {
            return false;
        }
        let healthy = |place: &Place| place.rank.class != Class::Failing;
        let healthy_wait = self.line.present_before(rank).any(healthy)
            || self
                .promised_soon(capacity, capacity.per, now)
                .any(|(_, place)| healthy(place));
        !healthy_wait || capacity.failing_frees_at(now).is_none()
    }

    /// The promises that a request sent now could break, and those that a cache
    /// is late for by no more than `late`.
    fn promised_soon(
        &self,
        capacity: &Capacity,
        late: Duration,
        now: Instant,
    ) -> impl Iterator<Item = (Instant, &Place)> {
        let from = now.checked_sub(late).unwrap_or(now);
        self.line.promised(from, later(now, capacity.cycle()))
    }

    /// When this rank's turn comes, if everything goes on as it did so far.
    fn expected(&self, capacity: &Capacity, rank: Rank, now: Instant) -> Instant {
        let position = self.line.position(rank);
        if rank.class != Class::Failing {
            let expected = capacity.expected(position, now);
            // Not before those ahead: they may have been promised later times.
            let ahead = self.line.expected_before(rank, capacity.requests);
            let after = ahead.map_or(now, |ahead| later(ahead, capacity.cycle()));
            return expected.max(after);
        }
        // One more stays free, and there is one turn a window.
        let spare = usize::from(capacity.requests > 1);
        let room = capacity.expected(position.saturating_add(spare), now);
        let turns = u32::try_from(self.line.position_in_class(rank)).unwrap_or(u32::MAX);
        let turns = capacity.cycle().saturating_mul(turns);
        match capacity.failing_frees_at(now) {
            Some(first) => room.max(later(first, turns)),
            None => room,
        }
    }

    fn forget(&mut self, now: Instant) {
        if self.last_now.is_some_and(|last| now < last) {
            // Another clock, such as that of a test that was a day ahead.
            self.line.forget_promises();
            if let Some(capacity) = &mut self.capacity {
                capacity.forget_beyond(now);
            }
        }
        self.last_now = Some(now);
        self.closures.forget(now);
        if let Some(capacity) = &mut self.capacity {
            capacity.forget(now);
            self.line.forget(now, capacity.per);
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(capacity) = &self.capacity else {
            return f.write_str("Allowance::unlimited");
        };
        f.debug_struct("Allowance")
            .field("requests", &capacity.requests)
            .field("per", &capacity.per)
            .field("used", &(capacity.requests.saturating_sub(capacity.free())))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
