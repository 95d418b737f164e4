//! The sliding window: who may send a token request now, or when. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::closures::{Client, Closures};
use super::line::{Class, Line, Place, Rank};
use super::{Standing, Urgency};
use crate::clock::later;

/// A free request is held back for a cache that was promised it for this long
/// after the promised time.
const HELD_FOR: Duration = Duration::from_secs(5);

/// What a first token request is taken to last, before one was measured.
const FIRST_DURATION: Duration = Duration::from_secs(1);

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
    /// Not now. The request is expected to be free at this time, which is later
    /// than now; a change may bring it forward.
    RetryAt(Instant),
}

struct Sent {
    id: u64,
    /// When it could have been sent: late comers lengthen the estimates.
    due: Instant,
    failing: bool,
}

pub(super) struct Window {
    /// `None` is unlimited.
    limit: Option<(usize, Duration)>,
    /// Requests sent, not yet answered: they count until further notice.
    in_flight: Vec<Sent>,
    /// When each answered request stops counting, earliest first, and whether
    /// it was sent for a failing cache.
    frees: VecDeque<(Instant, bool)>,
    line: Line,
    closures: Closures,
    /// How long a request counts beyond `per`: a moving average.
    duration: Duration,
    next_id: u64,
    last_now: Option<Instant>,
}

impl Window {
    pub(super) fn new(limit: Option<(u32, Duration)>) -> Self {
        let size = |requests| usize::try_from(requests).unwrap_or(usize::MAX);
        Self {
            limit: limit.map(|(requests, per)| (size(requests), per)),
            in_flight: Vec::new(),
            frees: VecDeque::new(),
            line: Line::default(),
            closures: Closures::default(),
            duration: FIRST_DURATION,
            next_id: 0,
            last_now: None,
        }
    }

    #[cfg(feature = "store")]
    pub(super) fn limit(&self) -> Option<(u32, Duration)> {
        let (requests, per) = self.limit?;
        Some((u32::try_from(requests).unwrap_or(u32::MAX), per))
    }

    /// May this cache send now? If not, it waits in its place in the line:
    /// [`refuse`](Self::refuse) or [`leave`](Self::leave) it if it goes away.
    pub(super) fn try_acquire(&mut self, wish: &Wish<'_>, now: Instant) -> Decision {
        self.forget(now);
        let closed_until = self.closures.closed_until(wish.client, now);
        let Some((requests, per)) = self.limit else {
            return match closed_until {
                Some(until) => Decision::RetryAt(until),
                None => self.grant(wish, now),
            };
        };
        let promise = self.line.promise_of(wish.applicant);
        let &Wish {
            applicant,
            client,
            standing,
            urgency,
        } = wish;
        let Some(rank) = self.line.enter(applicant, client, standing, urgency, now) else {
            let expected = self.slot_at(self.line.len(), now);
            return Decision::RetryAt(expected.max(later(now, per)));
        };
        if requests == 0 {
            return Decision::RetryAt(later(now, per.max(Duration::from_secs(1))));
        }
        if closed_until.is_none() && self.has_room_for(rank, now) {
            self.line.leave(applicant);
            let due = promise.map_or(now, |promise| promise.min(now));
            return self.send(due, standing.failing);
        }
        let expected = self.expected(rank, now).max(later(now, MIN_WAIT));
        Decision::RetryAt(closed_until.map_or(expected, |closed| closed.max(expected)))
    }

    /// The cache was told to come back at this time. It keeps its place.
    pub(super) fn refuse(&mut self, applicant: u64, promise: Instant, now: Instant) {
        if let Some((_, per)) = self.limit {
            self.line.absent(applicant, Some(promise), now, per);
        }
    }

    /// The cache stopped waiting, and may come back.
    pub(super) fn leave(&mut self, applicant: u64, now: Instant) {
        if let Some((_, per)) = self.limit {
            self.line.absent(applicant, None, now, per);
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
        let Some(sent) = self.take(id) else { return };
        let Some((_, per)) = self.limit else { return };
        let lasted = now.saturating_duration_since(sent.due).min(per);
        self.duration = (self.duration * 7 + lasted) / 8;
        let frees = later(now, per);
        let at = self.frees.partition_point(|&(other, _)| other <= frees);
        self.frees.insert(at, (frees, sent.failing));
    }

    /// A request that was granted was not sent after all.
    pub(super) fn not_sent(&mut self, id: u64) {
        self.take(id);
    }

    /// The waiting caches that a change may concern, first ones first.
    pub(super) fn next_in_line(&self) -> impl Iterator<Item = u64> {
        let woken = self.free().saturating_add(WOKEN_BEYOND_FREE);
        self.line
            .present()
            .take(woken)
            .map(|(_, applicant)| applicant)
    }

    /// Whether nothing would be lost with this window.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.forget(now);
        let unused = self.in_flight.is_empty() && self.frees.is_empty();
        unused && self.line.is_empty() && self.closures.is_empty()
    }

    fn grant(&mut self, wish: &Wish<'_>, now: Instant) -> Decision {
        self.send(now, wish.standing.failing)
    }

    fn send(&mut self, due: Instant, failing: bool) -> Decision {
        self.next_id += 1;
        let id = self.next_id;
        self.in_flight.push(Sent { id, due, failing });
        Decision::Granted(id)
    }

    fn take(&mut self, id: u64) -> Option<Sent> {
        let at = self.in_flight.iter().position(|sent| sent.id == id)?;
        Some(self.in_flight.remove(at))
    }

    fn free(&self) -> usize {
        let taken = self.in_flight.len() + self.frees.len();
        self.limit
            .map_or(usize::MAX, |(requests, _)| requests.saturating_sub(taken))
    }

    /// Whether one of the free requests is this rank's: after those that wait
    /// before it, and without breaking a promise to one that is away.
    fn has_room_for(&self, rank: Rank, now: Instant) -> bool {
        let free = self.free();
        let open = |client: &Client| self.closures.closed_until(client, now).is_none();
        let waiting = self.line.present_before(rank);
        let waiting = waiting
            .filter(|place| open(&place.client))
            .take(free)
            .count();
        if waiting >= free {
            return false;
        }
        if rank.class == Class::Failing && !self.has_room_for_failing(rank, free, now) {
            return false;
        }
        let left = free - waiting - 1;
        let promised = self
            .promised_soon(now)
            .filter(|(_, place)| place.rank < rank);
        for (owed, (promise, _)) in promised.enumerate() {
            let freed = self.frees.partition_point(|&(frees, _)| frees <= promise);
            if owed + 1 > left + freed {
                return false;
            }
        }
        true
    }

    /// Failing caches leave one request free, and have no more than one while
    /// a healthy cache waits.
    fn has_room_for_failing(&self, rank: Rank, free: usize, now: Instant) -> bool {
        let alone = self.limit.is_some_and(|(requests, _)| requests == 1);
        if free < 2 && !alone {
            return false;
        }
        let healthy = |place: &&Place| place.rank.class != Class::Failing;
        let healthy_wait = self.line.present_before(rank).any(|place| healthy(&place))
            || self.promised_soon(now).any(|(_, place)| healthy(&place));
        !healthy_wait || self.failing_taken().next().is_none()
    }

    /// The promises that a request sent now could break.
    fn promised_soon(&self, now: Instant) -> impl Iterator<Item = (Instant, &Place)> {
        let from = now.checked_sub(HELD_FOR).unwrap_or(now);
        self.line.promised(from, later(now, self.cycle()))
    }

    /// When this rank's turn comes, if everything goes as it did so far.
    fn expected(&self, rank: Rank, now: Instant) -> Instant {
        let position = self.line.position(rank);
        if rank.class != Class::Failing {
            return self.slot_at(position, now);
        }
        // One free request more than it takes, and one turn a window.
        let slot = self.slot_at(position.saturating_add(1), now);
        let turns = u32::try_from(self.line.position_in_class(rank)).unwrap_or(u32::MAX);
        match self.failing_taken().min() {
            Some(first) => {
                let turns = self.cycle().saturating_mul(turns);
                slot.max(later(
                    first.unwrap_or_else(|| later(now, self.cycle())),
                    turns,
                ))
            }
            None => slot,
        }
    }

    /// When the requests of failing caches stop counting; `None` for those that
    /// are not answered yet.
    fn failing_taken(&self) -> impl Iterator<Item = Option<Instant>> {
        let in_flight = self.in_flight.iter().filter(|sent| sent.failing);
        let answered = self.frees.iter().filter(|(_, failing)| *failing);
        let answered = answered.map(|&(frees, _)| Some(frees));
        in_flight.map(|_| None).chain(answered)
    }

    /// When the request number `position` from now on may be sent.
    fn slot_at(&self, position: usize, now: Instant) -> Instant {
        let Some((requests, per)) = self.limit.filter(|&(requests, _)| requests > 0) else {
            return now;
        };
        let (round, slot) = (position / requests, position % requests);
        let free = self.free();
        let first = match slot.checked_sub(free) {
            None => now,
            Some(taken) => match self.frees.get(taken) {
                Some(&(frees, _)) => frees,
                None => {
                    let in_flight = self.in_flight.get(taken - self.frees.len());
                    let answered = in_flight.map(|sent| later(sent.due, self.duration));
                    later(answered.unwrap_or(now).clamp(now, later(now, per)), per)
                }
            },
        };
        let rounds = u32::try_from(round).unwrap_or(u32::MAX);
        later(first, self.cycle().saturating_mul(rounds))
    }

    /// From one request to the next in the same place of the window.
    fn cycle(&self) -> Duration {
        let per = self.limit.map_or(Duration::ZERO, |(_, per)| per);
        // Rounded up: who comes a little later than need be is served.
        per.saturating_add(self.duration).saturating_add(per / 60)
    }

    fn forget(&mut self, now: Instant) {
        if self.last_now.is_some_and(|last| now < last) {
            // Another clock, such as a test's that was a day ahead.
            self.line.forget_promises();
            if let Some((_, per)) = self.limit {
                self.frees.retain(|&(frees, _)| frees <= later(now, per));
            }
        }
        self.last_now = Some(now);
        self.closures.forget(now);
        while self.frees.front().is_some_and(|&(frees, _)| frees <= now) {
            self.frees.pop_front();
        }
        if let Some((_, per)) = self.limit {
            self.line.forget(now, per);
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((requests, per)) = self.limit else {
            return f.write_str("Allowance::unlimited");
        };
        f.debug_struct("Allowance")
            .field("requests", &requests)
            .field("per", &per)
            .field("used", &(self.in_flight.len() + self.frees.len()))
            .finish_non_exhaustive()
    }
}
