//! Explores the protocol exhaustively, breadth first, with the pure record and the pure verdict: three
//! processes and a window of two requests, with one crash, pauses past the lease, lost replies, rejected
//! tokens, and steps of a process's wall clock.
//!
//! Time is relative: a tick brings every expiry closer, so the number of states is finite.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test has no outside input"
)]

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use officernd_auth::provider::Cause::{self, Cold, Rejected};

use crate::entry::{Candidate, Verdict};
use crate::record::{Record, Window};
use crate::store::{Claim, Claimed, Finish, Limits, Name};

// In ticks. A request takes at most one tick and is sent in the tick of its claim.
const LEASE: u64 = 2;
const PER: u64 = 1;
const LIFE: u64 = 1;
const REQUESTS: u32 = 2;
const NOW: u64 = 1000;
const PROCESSES: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    record: Record,
    window: Window,
    processes: [Process; PROCESSES],
    /// Requests that were answered less than `PER` ago: the endpoint counts them.
    answered: u8,
    /// The number of the request whose result the entry holds. Later requests have higher numbers.
    saved: u8,
    sent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Process {
    /// Has no token and claims. Has seen the entry of this process.
    Waiting(Option<usize>),
    /// Has the lease, granted in this tick (`fresh`) or earlier.
    Granted {
        fresh: bool,
        seen: Option<usize>,
    },
    /// Has sent a request, which is answered within a tick.
    Sent(u8),
    /// Has the response and has not finished. May be paused here.
    Answered {
        number: u8,
        token: bool,
    },
    /// Has a token.
    Served,
    /// Has a failure, and a time to retry.
    Failed,
    Crashed,
}

use Process::{Answered, Crashed, Failed, Granted, Sent, Served, Waiting};

impl State {
    /// Returns every possible next state.
    fn next(&self) -> Vec<Self> {
        let mut next = vec![self.tick()];
        let crashed = self.processes.contains(&Crashed);
        for at in 0..PROCESSES {
            match self.processes[at] {
                Waiting(seen) => {
                    // The process has no token, its token was answered 401, or the entry's token has expired
                    // by its wall clock.
                    for (cause, is_valid) in [(Cold, true), (Rejected, true), (Cold, false)] {
                        next.push(self.claim(at, seen, true, (cause, is_valid)));
                    }
                    next.push(self.claim(at, seen, false, (Cold, true)));
                    // The reply is lost after the store has acted.
                    let acted = self.claim(at, seen, true, (Cold, true));
                    next.push(acted.with(at, self.processes[at]));
                }
                Granted { fresh, seen } => {
                    // The process was suspended, by one of its clocks.
                    next.push(self.with(at, Waiting(seen)));
                    if fresh {
                        next.push(self.send(at));
                    }
                }
                Sent(number) => {
                    next.push(self.answer(at, number, true));
                    next.push(self.answer(at, number, false));
                }
                Answered { number, token } => {
                    let finished = self.finish(at, number, token);
                    next.push(finished.with(at, self.processes[at]));
                    next.push(finished);
                }
                Served | Failed | Crashed => continue,
            }
            if !crashed {
                next.push(self.crash(at));
            }
        }
        next
    }

    fn with(&self, at: usize, process: Process) -> Self {
        let mut state = self.clone();
        state.processes[at] = process;
        state
    }

    fn crash(&self, at: usize) -> Self {
        let mut state = self.with(at, Crashed);
        if let Sent(_) = self.processes[at] {
            // The endpoint answers the request of the process that crashed, as late as possible.
            state.answered += 1;
        }
        state
    }

    fn tick(&self) -> Self {
        let mut state = self.clone();
        state.record.age(NOW);
        state.window.age(NOW);
        state.answered = 0;
        for process in &mut state.processes {
            match process {
                Granted { fresh, .. } => *fresh = false,
                Sent(number) => {
                    state.answered += 1;
                    *process = Answered {
                        number: *number,
                        token: true,
                    };
                }
                _ => {}
            }
        }
        state
    }

    /// Claims for the process `at`, for this cause; `is_valid` tells whether the entry's token is valid by its clock.
    fn claim(&self, at: usize, seen: Option<usize>, may_fetch: bool, entry: (Cause, bool)) -> Self {
        let (cause, is_valid) = entry;
        let mut state = self.clone();
        let ticks = Duration::from_millis;
        let limits = Limits::new(ticks(LEASE), Some(REQUESTS), ticks(PER));
        let mut claim = Claim::new(key(), key(), holder(at), limits);
        (claim.seen, claim.may_fetch) = (seen.map(holder), may_fetch);
        let claimed = state.record.claim(&mut state.window, &claim, NOW);
        if let Claimed::Entry(entry) = &claimed {
            assert!(
                claim.seen.as_ref() != Some(&entry.id),
                "it has seen this entry"
            );
        }
        state.processes[at] = match claimed {
            Claimed::Entry(entry) if entry.sealed == b"failure" => Failed,
            Claimed::Entry(entry) if takes(cause, is_valid, entry.expires_in) => {
                assert!(cause == Cold && is_valid, "a token that cannot be used");
                Served
            }
            Claimed::Entry(entry) => Waiting((0..PROCESSES).find(|at| holder(*at) == entry.id)),
            Claimed::Granted => {
                assert!(may_fetch, "granted to a process that may not fetch");
                Granted { fresh: true, seen }
            }
            Claimed::Leased(wait) => {
                assert!(!wait.is_zero() && wait <= ticks(LEASE), "{wait:?}");
                Waiting(seen)
            }
            Claimed::RateLimited(wait) => {
                assert!(wait <= ticks(LEASE + PER), "{wait:?}");
                assert!(!may_fetch || !wait.is_zero(), "a wait without an end");
                Waiting(seen)
            }
        };
        state
    }

    fn send(&self, at: usize) -> Self {
        let mut state = self.clone();
        state.sent += 1;
        state.processes[at] = Sent(state.sent);
        state
    }

    fn answer(&self, at: usize, number: u8, token: bool) -> Self {
        let mut state = self.with(at, Answered { number, token });
        state.answered += 1;
        state
    }

    fn finish(&self, at: usize, number: u8, token: bool) -> Self {
        let mut state = self.with(at, if token { Served } else { Failed });
        let finish = Finish::new(key(), key(), holder(at), Duration::from_millis(PER));
        let sealed = if token { &b"token"[..] } else { b"failure" };
        let finish = finish.entry(sealed.to_vec(), Duration::from_millis(LIFE));
        if state.record.finish(&mut state.window, &finish, NOW) {
            assert!(number >= state.saved, "an older entry replaced a newer one");
            state.saved = number;
        }
        state
    }

    fn check(&self) {
        let sent = self.processes.iter().filter(|it| matches!(it, Sent(_)));
        let in_flight = sent.count();
        assert!(in_flight <= 1, "two live grants: {self:?}");
        let counted = in_flight + usize::from(self.answered);
        assert!(counted <= 2, "more than the window allows: {self:?}");
    }

    /// Checks that, if all replies arrive from now on, one more token request gives each process a token or a
    /// failure.
    fn check_progress(&self) {
        let mut state = self.clone();
        let ended = |it: &Process| matches!(it, Served | Failed | Crashed);
        for _ in 0..3 * (LEASE + PER) {
            // Six rounds are enough to claim, send and finish in one tick.
            for at in (0..6).flat_map(|_| 0..PROCESSES) {
                state = match state.processes[at] {
                    Waiting(seen) => state.claim(at, seen, true, (Cold, true)),
                    Granted { fresh: true, .. } => state.send(at),
                    Granted { seen, .. } => state.with(at, Waiting(seen)),
                    Sent(number) => state.answer(at, number, true),
                    Answered { number, token } => state.finish(at, number, token),
                    Served | Failed | Crashed => continue,
                };
            }
            if state.processes.iter().all(ended) {
                break;
            }
            state = state.tick();
        }
        assert!(
            state.processes.iter().all(ended),
            "no progress: {self:?} ... {state:?}"
        );
        assert!(
            state.sent <= self.sent + 1,
            "one request is enough: {self:?} ... {state:?}"
        );
    }
}

/// Returns whether a process takes the token of an entry. A tick is ten minutes.
fn takes(cause: Cause, is_valid: bool, expires_in: Duration) -> bool {
    let ticks = |ticks| Duration::from_secs(600 * ticks);
    let left = match is_valid {
        true => ticks(u64::try_from(expires_in.as_millis()).unwrap()),
        false => Duration::ZERO,
    };
    let has_it = cause == Rejected;
    let candidate = Candidate {
        left,
        granted: ticks(LIFE),
        minted_by: "",
        same_value: has_it,
        last: has_it.then_some(""),
        previous_left: if has_it { left } else { Duration::ZERO },
    };
    candidate.verdict(cause) == Verdict::Accept
}

fn key() -> Name {
    static KEY: LazyLock<Name> = LazyLock::new(|| Name::digest_of(b""));
    KEY.clone()
}

/// Returns the name of a process.
fn holder(at: usize) -> Name {
    static HOLDERS: LazyLock<[Name; PROCESSES]> =
        LazyLock::new(|| [0, 1, 2].map(|at| Name::parse(&format!("{at:032x}")).unwrap()));
    HOLDERS[at].clone()
}

#[test]
fn no_order_of_events_breaks_the_protocol() {
    let start = Rc::new(State {
        record: Record::default(),
        window: Window::default(),
        processes: [Waiting(None); PROCESSES],
        answered: 0,
        saved: 0,
        sent: 0,
    });
    let mut known = HashSet::from([Rc::clone(&start)]);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        state.check();
        state.check_progress();
        for next in state.next() {
            let next = Rc::new(next);
            if known.insert(Rc::clone(&next)) {
                queue.push_back(next);
            }
        }
    }
    println!("explored: {} states of the store's protocol", known.len());
    assert!(known.len() > 10_000, "{}", known.len());
}
