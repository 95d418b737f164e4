//! The requests that a window holds, and when each stops counting. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::later;

/// What a token request is taken to last before one was measured.
const FIRST_DURATION: Duration = Duration::from_secs(1);

/// At most `requests` in any `per`, counted from before a request is sent until
/// `per` after its answer.
pub(super) struct Capacity {
    pub(super) requests: usize,
    pub(super) per: Duration,
    /// Sent, not yet answered: they count until further notice.
    in_flight: Vec<Sent>,
    /// Answered, by when they stop counting.
    answered: VecDeque<Answered>,
    /// How long a request counts beyond `per`: a moving average.
    duration: Duration,
}

struct Sent {
    id: u64,
    /// When it could have been sent: late comers lengthen the estimates.
    due: Instant,
    failing: bool,
}

struct Answered {
    frees_at: Instant,
    failing: bool,
}

impl Capacity {
    pub(super) fn new(requests: u32, per: Duration) -> Self {
        Self {
            requests: usize::try_from(requests).unwrap_or(usize::MAX),
            per,
            in_flight: Vec::new(),
            answered: VecDeque::new(),
            duration: FIRST_DURATION,
        }
    }

    pub(super) fn free(&self) -> usize {
        let taken = self.in_flight.len() + self.answered.len();
        self.requests.saturating_sub(taken)
    }

    /// Whether no answered request counts any more.
    pub(super) fn is_unused(&self) -> bool {
        self.answered.is_empty()
    }

    /// How many of the answered requests stop counting by then.
    pub(super) fn freed_by(&self, at: Instant) -> usize {
        self.answered.partition_point(|other| other.frees_at <= at)
    }

    pub(super) fn send(&mut self, id: u64, due: Instant, failing: bool) {
        self.in_flight.push(Sent { id, due, failing });
    }

    pub(super) fn answered(&mut self, id: u64, now: Instant) {
        let Some(Sent { due, failing, .. }) = self.take(id) else {
            return;
        };
        let lasted = now.saturating_duration_since(due).min(self.per);
        self.duration = (self.duration * 7 + lasted) / 8;
        let frees_at = later(now, self.per);
        let at = self.freed_by(frees_at);
        self.answered.insert(at, Answered { frees_at, failing });
    }

    pub(super) fn not_sent(&mut self, id: u64) {
        self.take(id);
    }

    fn take(&mut self, id: u64) -> Option<Sent> {
        let at = self.in_flight.iter().position(|sent| sent.id == id)?;
        Some(self.in_flight.remove(at))
    }

    /// Drops what has stopped counting.
    pub(super) fn forget(&mut self, now: Instant) {
        while self
            .answered
            .front()
            .is_some_and(|first| first.frees_at <= now)
        {
            self.answered.pop_front();
        }
    }

    /// Drops what another clock measured: no request counts for longer.
    pub(super) fn forget_beyond(&mut self, now: Instant) {
        let longest = later(now, self.per);
        self.answered
            .retain(|answered| answered.frees_at <= longest);
    }

    /// When the request number `position` from now on may be sent, if they last
    /// as long as the ones before.
    pub(super) fn expected(&self, position: usize, now: Instant) -> Instant {
        if self.requests == 0 {
            return later(now, self.cycle());
        }
        let (round, place) = (position / self.requests, position % self.requests);
        let first = match place.checked_sub(self.free()) {
            None => now,
            Some(taken) => match self.answered.get(taken) {
                Some(answered) => answered.frees_at,
                None => self.freed_at(self.in_flight.get(taken - self.answered.len()), now),
            },
        };
        let rounds = u32::try_from(round).unwrap_or(u32::MAX);
        later(first, self.cycle().saturating_mul(rounds))
    }

    /// When the first request of a failing cache stops counting; `None` if
    /// there is none.
    pub(super) fn failing_frees_at(&self, now: Instant) -> Option<Instant> {
        match self.answered.iter().find(|answered| answered.failing) {
            Some(answered) => Some(answered.frees_at),
            None => {
                let sent = self.in_flight.iter().find(|sent| sent.failing)?;
                Some(self.freed_at(Some(sent), now))
            }
        }
    }

    fn freed_at(&self, sent: Option<&Sent>, now: Instant) -> Instant {
        let answered = sent.map_or(now, |sent| later(sent.due, self.duration));
        // An overdue answer may come now; one that is further off than a
        // window was sent by another clock.
        later(answered.clamp(now, later(now, self.per)), self.per)
    }

    /// From one request to the next in the same place of the window.
    pub(super) fn cycle(&self) -> Duration {
        let margin = self.per / 60;
        // Rounded up: a cache that comes back a little later is served.
        self.per
            .saturating_add(self.duration)
            .saturating_add(margin)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_request_counts_until_one_window_after_its_answer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut capacity = Capacity::new(2, MINUTE);
        capacity.send(1, start, false);
        capacity.send(2, start, false);
        assert_eq!(capacity.free(), 0);
        capacity.answered(2, at(3));
        capacity.forget(at(62));
        assert_eq!(capacity.free(), 0);
        capacity.forget(at(63));
        assert_eq!(capacity.free(), 1);
        // The other one is still out, however long it takes.
        capacity.forget(at(10_000));
        assert_eq!(capacity.free(), 1);
        capacity.not_sent(1);
        assert_eq!(capacity.free(), 2);
    }

    #[test]
    fn estimates_go_round_by_round() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut capacity = Capacity::new(3, MINUTE);
        capacity.send(1, start, false);
        capacity.answered(1, at(1));
        capacity.send(2, at(10), false);
        // A second is what requests last, and a second is the margin.
        assert_eq!(capacity.cycle(), Duration::from_secs(62));
        let expected = [10, 61, 71, 10 + 62, 61 + 62, 71 + 62, 10 + 124];
        for (position, seconds) in expected.into_iter().enumerate() {
            assert_eq!(
                capacity.expected(position, at(10)),
                at(seconds),
                "{position}"
            );
        }
        // An answer that is overdue may come at any time.
        assert_eq!(capacity.expected(2, at(20)), at(80));
    }

    #[test]
    fn estimates_follow_what_requests_last() {
        let start = Instant::now();
        let mut capacity = Capacity::new(1000, MINUTE);
        for id in 0..50 {
            capacity.send(id, start, false);
            capacity.answered(id, start + Duration::from_secs(10));
        }
        let cycle = capacity.cycle().as_secs_f64();
        assert!((70.8..=71.0).contains(&cycle), "{cycle}");
    }
}
