//! Explores the protocol exhaustively, breadth first, on the pure record and
//! the pure verdict: three processes, a window of two requests; crashes, pauses
//! past the lease, lost answers, and steps of a process's wall clock.
//!
//! Time is relative: a tick brings every end closer, so the states are finite.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test: its indices and texts are its own"
)]

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::acceptance::{Candidate, Verdict};
use super::claim::{Claim, Claimed, Finish, Limits};
use super::name::{Holder, StoreKey};
use super::record::{Record, Window};
use crate::provider::Cause;

/// In ticks. A process sends less than `LEASE - REQUEST` after its claim.
const LEASE: u64 = 3;
const REQUEST: u64 = 2;
const PER: u64 = 2;
const LIFE: u64 = 3;
const REQUESTS: u32 = 2;
const NOW: u64 = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    record: Record,
    window: Window,
    processes: Vec<Process>,
    /// Ticks since the answer, of requests that still count at the endpoint.
    answered: Vec<u64>,
    /// Which request brought the entry; later ones are greater.
    saved: u32,
    sent: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Process {
    /// Has no token, and claims.
    Waiting {
        seen: Option<Holder>,
    },
    /// Was granted the fetch so many ticks ago.
    Granted {
        age: u64,
        seen: Option<Holder>,
    },
    /// Sent a request; it is answered within `REQUEST` ticks.
    Sent {
        age: u64,
        number: u32,
    },
    /// The answer is there; the store does not know yet. May be paused here.
    Answered {
        number: u32,
        token: bool,
    },
    Served,
    /// Knows of a failure, and when to ask again.
    Told,
    Crashed,
}

use Process::{Answered, Crashed, Granted, Sent, Served, Told, Waiting};

impl State {
    fn new() -> Self {
        Self {
            record: Record::default(),
            window: Window::default(),
            processes: vec![Waiting { seen: None }; 3],
            answered: Vec::new(),
            saved: 0,
            sent: 0,
        }
    }

    /// Every state that can follow.
    fn next(&self) -> Vec<Self> {
        let mut next = vec![self.tick()];
        for at in 0..self.processes.len() {
            match self.processes[at].clone() {
                Waiting { seen } => {
                    next.push(self.claim(at, seen.clone(), true, true));
                    // The answer is lost: the store has acted.
                    next.push(self.claim(at, seen.clone(), true, false));
                    next.push(self.claim(at, seen, false, true));
                }
                Granted { age, seen } => {
                    // The wall clock says more than the monotonic one, or it
                    // was stopped: claim again.
                    next.push(self.with(at, Waiting { seen }));
                    if age < LEASE - REQUEST {
                        next.push(self.send(at));
                    }
                }
                Sent { number, .. } => {
                    next.push(self.answer(at, number, true));
                    next.push(self.answer(at, number, false));
                }
                Answered { number, token } => {
                    next.push(self.finish(at, number, token));
                }
                Served | Told | Crashed => continue,
            }
            next.push(self.with(at, Crashed));
        }
        next
    }

    fn with(&self, at: usize, process: Process) -> Self {
        let mut state = self.clone();
        if let (Sent { .. }, Crashed) = (&state.processes[at], &process) {
            // The endpoint answers all the same, at the latest moment.
            state.answered.push(0);
        }
        state.processes[at] = process;
        state
    }

    fn tick(&self) -> Self {
        let mut state = self.clone();
        state.record.age(1);
        state.window.age(1);
        for age in &mut state.answered {
            *age += 1;
        }
        state.answered.retain(|age| *age < PER);
        state.answered.sort_unstable();
        for at in 0..state.processes.len() {
            match &mut state.processes[at] {
                Granted { age, .. } => *age = (*age + 1).min(LEASE),
                Sent { age, .. } if *age + 1 < REQUEST => *age += 1,
                Sent { number, .. } => {
                    let (number, token) = (*number, true);
                    state.answered.push(0);
                    state.processes[at] = Answered { number, token };
                }
                _ => {}
            }
        }
        state
    }

    fn claim(&self, at: usize, seen: Option<Holder>, may_fetch: bool, heard: bool) -> Self {
        let mut state = self.clone();
        let ticks = Duration::from_millis;
        let limits = Limits::new(ticks(LEASE), Some(REQUESTS), ticks(PER));
        let mut claim = Claim::new(key(), key(), holder(at), limits);
        (claim.seen, claim.may_fetch) = (seen.clone(), may_fetch);
        let claimed = state.record.claim(&mut state.window, &claim, NOW);
        let process = match claimed {
            Claimed::Entry(entry) if entry.sealed == b"failure" => Told,
            Claimed::Entry(entry) => match verdict(entry.expires_in) {
                Verdict::Accept => Served,
                _ => Waiting {
                    seen: Some(entry.id),
                },
            },
            Claimed::Granted => Granted { age: 0, seen },
            Claimed::Leased(wait) => {
                assert!(!wait.is_zero() && wait <= ticks(LEASE), "{wait:?}");
                Waiting { seen }
            }
            Claimed::RateLimited(wait) => {
                assert!(wait <= ticks(LEASE + PER), "{wait:?}");
                assert!(!may_fetch || !wait.is_zero());
                Waiting { seen }
            }
        };
        if heard {
            state.processes[at] = process;
        }
        state
    }

    fn send(&self, at: usize) -> Self {
        let mut state = self.clone();
        state.sent += 1;
        let number = state.sent;
        state.processes[at] = Sent { age: 0, number };
        state
    }

    fn answer(&self, at: usize, number: u32, token: bool) -> Self {
        let mut state = self.clone();
        state.answered.push(0);
        state.answered.sort_unstable();
        state.processes[at] = Answered { number, token };
        state
    }

    fn finish(&self, at: usize, number: u32, token: bool) -> Self {
        let mut state = self.clone();
        let finish = Finish::new(key(), key(), holder(at), Duration::from_millis(PER));
        let sealed = if token { &b"token"[..] } else { b"failure" };
        let finish = finish.entry(sealed.to_vec(), Duration::from_millis(LIFE));
        if state.record.finish(&mut state.window, &finish, NOW) {
            assert!(
                number > state.saved,
                "an older entry in place of a newer one"
            );
            state.saved = number;
        }
        state.processes[at] = if token { Served } else { Told };
        state
    }

    fn check(&self) {
        let in_flight = self.processes.iter().filter(|it| matches!(it, Sent { .. }));
        let in_flight = in_flight.count();
        assert!(in_flight <= 1, "two live grants: {self:?}");
        let counted = in_flight + self.answered.len();
        assert!(counted <= 2, "more than the window allows: {self:?}");
    }

    /// If all answers arrive from here on, everybody is served or told in time.
    fn comes_to_an_end(&self) {
        let mut state = self.clone();
        for _ in 0..4 * (LEASE + PER) {
            // Often enough to claim and to send in one tick.
            for at in (0..3).flat_map(|_| 0..3) {
                state = match state.processes[at].clone() {
                    Waiting { seen } => state.claim(at, seen, true, true),
                    Granted { age: 0, .. } => state.send(at),
                    Granted { seen, .. } => state.with(at, Waiting { seen }),
                    Sent { number, .. } => state.answer(at, number, true),
                    Answered { number, token } => state.finish(at, number, token),
                    Served | Told | Crashed => state,
                };
            }
            state = state.tick();
        }
        let ended = |it: &Process| matches!(it, Served | Told | Crashed);
        assert!(state.processes.iter().all(ended), "{self:?} ... {state:?}");
    }
}

/// A tick is a sixth of an hour's token.
fn verdict(left: Duration) -> Verdict {
    let ticks = u64::try_from(left.as_millis()).unwrap();
    let candidate = Candidate {
        left: Duration::from_secs(600 * ticks),
        granted: Duration::from_secs(600 * LIFE),
        replaced_rejected: false,
        current: None,
    };
    candidate.verdict(Cause::Cold)
}

fn key() -> StoreKey {
    StoreKey::digest_of(b"")
}

fn holder(at: usize) -> Holder {
    Holder::parse(&format!("{at:032x}")).unwrap()
}

#[test]
fn no_order_of_events_breaks_the_protocol() {
    let start = State::new();
    let mut known = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        state.check();
        state.comes_to_an_end();
        for next in state.next() {
            if known.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    println!("{} states", known.len());
    assert!(known.len() > 10_000, "{}", known.len());
}
