//! The sliding window and its queue, as pure decisions.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::Urgency;
use crate::clock::later;

/// As many caches may wait at once; one more is refused.
const LONGEST_QUEUE: usize = 4096;

pub(super) struct Ledger {
    requests: usize,
    per: Duration,
    /// Requests sent, not yet answered: they count until further notice.
    out: Vec<u64>,
    /// When each answered request frees its place, earliest first.
    frees: VecDeque<Instant>,
    /// By urgency, then by arrival.
    queue: Vec<(Urgency, u64)>,
    next_id: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Send, and say when it is answered.
    Granted(u64),
    /// Not before this.
    Free(Instant),
    /// Not before a request that is out is answered.
    Unknown,
}

impl Ledger {
    pub(super) fn new(requests: u32, per: Duration) -> Self {
        Self {
            requests: usize::try_from(requests).unwrap_or(usize::MAX),
            per,
            out: Vec::new(),
            frees: VecDeque::new(),
            queue: Vec::new(),
            next_id: 0,
        }
    }

    #[cfg(feature = "store")]
    pub(super) fn limit(&self) -> (u32, Duration) {
        (u32::try_from(self.requests).unwrap_or(u32::MAX), self.per)
    }

    /// Takes a place in the queue; `None` if it is full.
    pub(super) fn join(&mut self, urgency: Urgency) -> Option<u64> {
        if self.queue.len() >= LONGEST_QUEUE {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.insert(urgency, id);
        Some(id)
    }

    /// Moves a place up, or down, to its new urgency.
    pub(super) fn promote(&mut self, id: u64, urgency: Urgency) {
        if self.queue.iter().any(|&(_, queued)| queued == id) {
            self.leave(id);
            self.insert(urgency, id);
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.queue.retain(|&(_, queued)| queued != id);
    }

    /// May the one at this place send now? If so it leaves the queue.
    pub(super) fn ask(&mut self, id: u64, now: Instant) -> Answer {
        self.forget(now);
        let ahead = self.queue.iter().take_while(|&&(_, queued)| queued != id);
        let ahead = ahead.count();
        let taken = self.out.len() + self.frees.len();
        let free = self.requests.saturating_sub(taken);
        if ahead < free {
            self.leave(id);
            self.out.push(id);
            return Answer::Granted(id);
        }
        if self.requests == 0 {
            return Answer::Free(later(now, self.per.max(Duration::from_secs(1))));
        }
        match self.frees.get(ahead - free) {
            Some(&instant) => Answer::Free(instant),
            // More wait than the window holds: look again one window on.
            None => match self.frees.back() {
                Some(&last) if self.out.is_empty() => Answer::Free(later(last, self.per)),
                _ => Answer::Unknown,
            },
        }
    }

    /// A request that was granted is over, however it ended.
    pub(super) fn answered(&mut self, id: u64, now: Instant) {
        self.unsent(id);
        let frees = later(now, self.per);
        let at = self.frees.partition_point(|&other| other <= frees);
        self.frees.insert(at, frees);
    }

    /// A request that was granted was not sent after all.
    pub(super) fn unsent(&mut self, id: u64) {
        self.out.retain(|&out| out != id);
    }

    /// Whether nothing would be lost with this ledger.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.out.is_empty() && self.frees.is_empty() && self.queue.is_empty()
    }

    fn insert(&mut self, urgency: Urgency, id: u64) {
        let at = self.queue.partition_point(|&other| other < (urgency, id));
        self.queue.insert(at, (urgency, id));
    }

    fn forget(&mut self, now: Instant) {
        while self.frees.front().is_some_and(|&frees| frees <= now) {
            self.frees.pop_front();
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowance")
            .field("requests", &self.requests)
            .field("per", &self.per)
            .field("spent", &(self.out.len() + self.frees.len()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn spend(ledger: &mut Ledger, now: Instant) -> Answer {
        let id = ledger.join(Urgency::Waiting).unwrap();
        let answer = ledger.ask(id, now);
        ledger.leave(id);
        if let Answer::Granted(id) = answer {
            ledger.answered(id, now);
        }
        answer
    }

    #[test]
    fn the_sixth_request_waits_a_whole_window_after_the_first_answer() {
        let start = Instant::now();
        let mut ledger = Ledger::new(5, MINUTE);
        for second in 0..5 {
            let now = start + Duration::from_secs(second);
            assert!(matches!(spend(&mut ledger, now), Answer::Granted(_)));
        }
        let now = start + Duration::from_secs(5);
        assert_eq!(spend(&mut ledger, now), Answer::Free(start + MINUTE));
        assert!(matches!(
            spend(&mut ledger, start + MINUTE),
            Answer::Granted(_)
        ));
    }

    #[test]
    fn a_request_that_is_out_counts_however_long_it_takes() {
        let start = Instant::now();
        let mut ledger = Ledger::new(1, MINUTE);
        let slow = ledger.join(Urgency::Waiting).unwrap();
        assert!(matches!(ledger.ask(slow, start), Answer::Granted(_)));
        let much_later = start + 10 * MINUTE;
        assert_eq!(spend(&mut ledger, much_later), Answer::Unknown);
        ledger.answered(slow, much_later);
        assert_eq!(
            spend(&mut ledger, much_later),
            Answer::Free(much_later + MINUTE)
        );
    }

    #[test]
    fn waiting_requests_rank_before_refresh_ahead() {
        let start = Instant::now();
        let mut ledger = Ledger::new(2, MINUTE);
        assert!(matches!(spend(&mut ledger, start), Answer::Granted(_)));
        let ahead = ledger.join(Urgency::Background).unwrap();
        let waiting = ledger.join(Urgency::Waiting).unwrap();
        assert_eq!(ledger.ask(ahead, start), Answer::Free(start + MINUTE));
        assert_eq!(ledger.ask(waiting, start), Answer::Granted(waiting));
    }

    #[test]
    fn a_promoted_fetch_passes_those_in_the_background() {
        let start = Instant::now();
        let mut ledger = Ledger::new(1, MINUTE);
        let first = ledger.join(Urgency::Background).unwrap();
        let second = ledger.join(Urgency::Background).unwrap();
        ledger.promote(second, Urgency::Waiting);
        assert!(!matches!(ledger.ask(first, start), Answer::Granted(_)));
        assert!(matches!(ledger.ask(second, start), Answer::Granted(_)));
    }

    #[test]
    fn an_allowance_of_zero_grants_nothing_and_says_when_to_ask_again() {
        let start = Instant::now();
        let mut ledger = Ledger::new(0, MINUTE);
        assert_eq!(spend(&mut ledger, start), Answer::Free(start + MINUTE));
    }
}
