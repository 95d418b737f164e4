//! The decision table, and the invariants under random events.
//!
//! `LIFECYCLE_EVENTS=10000000 cargo test --all-features --lib lifecycle` drives
//! ten million events through the machine, in less than a minute on one core;
//! without it there are 50,000.
#![expect(clippy::disallowed_methods, reason = "any starting point will do")]

#[path = "lifecycle_backoff_tests.rs"]
mod backoff;

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A machine without jitter, the clocks, and what the test knows of its fetch.
struct World {
    machine: Lifecycle,
    now: Now,
    fetch: u64,
    age: Option<Age>,
}

impl World {
    fn new() -> Self {
        let policy = RefreshPolicy {
            jitter: 0.0,
            ..RefreshPolicy::default()
        };
        Self {
            machine: Lifecycle::new(policy, BackoffBounds::MAX_PERMANENT_SINGLE),
            now: Now {
                monotonic: Instant::now(),
                wall: SystemTime::now(),
            },
            fetch: 0,
            age: None,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    fn caller(&self) -> Caller {
        Caller::until(self.now.monotonic + s(30))
    }

    fn refresher(&self) -> Caller {
        let generation = self
            .machine
            .token
            .as_ref()
            .map_or(0, |token| token.token.generation());
        Caller::newer_than(generation, self.now.monotonic + s(30))
    }

    fn started(&mut self, start: Option<&StartFetch>) {
        if let Some(start) = start {
            self.fetch = start.id;
            self.age = Some(Age::starting(self.now.monotonic, self.now.wall));
        }
    }

    fn acquire(&mut self, caller: &mut Caller) -> Decision {
        let decision = self.machine.acquire(caller, self.now);
        if let Decision::Wait { start, .. } = &decision {
            self.started(start.as_ref());
        }
        decision
    }

    fn check(&mut self) -> Option<StartFetch> {
        let due = self.machine.check(self.now);
        if let Some(start) = &due {
            self.started(Some(start));
        }
        due
    }

    fn complete(&mut self, result: Result<AccessToken, Error>) -> Option<Completed> {
        let age = self.age.take();
        let (now, chance) = (self.now, 1.0);
        let age = age.unwrap_or_else(|| Age::starting(now.monotonic, now.wall));
        let result = result.map(|token| (token, age));
        self.machine.completed(self.fetch, result, now, chance)
    }

    fn fail(&mut self, kind: ErrorKind) {
        self.complete(Err(Error::new(kind, "failed")));
    }

    fn refuse(&mut self, after: Duration) {
        let error = Error::new(ErrorKind::RateLimited, "used up");
        self.complete(Err(error.with_retry_after(after).not_attempted()));
    }

    fn token(&mut self, life: Duration) {
        let name = format!("token-{}", self.fetch);
        self.complete(Ok(AccessToken::bearer(name, life).unwrap()));
    }

    fn fetch(&mut self) {
        let mut caller = self.caller();
        self.acquire(&mut caller);
    }

    /// A token of 3,600 s, this old: refresh due at 2,700 s.
    fn aged(&mut self, age: Duration) {
        self.fetch();
        self.token(s(3600));
        self.pass(age);
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn started(start: &StartFetch) -> String {
    format!("start {}", start.cause.as_str())
}

/// A decision in one line, as ARCHITECTURE.md has it.
fn described(decision: &Decision, now: Now) -> String {
    match decision {
        Decision::Ready(token) => format!("ready {}", token.generation()),
        Decision::Failed(error) => match error.retry_after() {
            Some(after) => format!("failed {}, retry after {}", error.kind(), seconds(after)),
            None => format!("failed {}", error.kind()),
        },
        Decision::Wait { until, start } => {
            let wait = seconds(*until - now.monotonic);
            match start {
                Some(start) => format!("wait {wait}, {}", started(start)),
                None => format!("wait {wait}"),
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A new caller asks for a token.
    Acquire,
    /// A new caller asks for a newer token than this.
    Refresh,
    /// A request found a token that is not fresh, or the timer fired.
    Check,
}

#[test]
#[rustfmt::skip]
fn decision_table() {
    use Event::{Acquire, Check, Refresh};

    type State = fn(&mut World);
    let table: [(&str, State, Event, &str); 40] = [
        ("no token", |_| {}, Acquire, "wait 1 s, start cold"),
        ("no token", |_| {}, Check, "start cold"),
        ("no token, fetch in flight", |w| w.fetch(), Acquire, "wait 1 s"),
        ("no token, fetch in flight", |w| w.fetch(), Check, "-"),
        ("no token, fetch in flight for 10 s more", |w| { w.fetch(); w.machine.fetch.advanced(1, w.now.monotonic + s(10)); }, Acquire, "wait 10 s"),
        ("no token, fetch overdue", |w| { w.fetch(); w.pass(s(1)); }, Acquire, "wait 1 s"),
        ("no token, fetch overdue for 1 s", |w| { w.fetch(); w.pass(s(1)); w.check(); w.pass(s(1)); }, Acquire, "wait 1 s, start cold"),
        ("no token, first transient failure", |w| { w.fetch(); w.fail(ErrorKind::Transport); }, Acquire, "wait 1 s"),
        ("no token, first transient failure", |w| { w.fetch(); w.fail(ErrorKind::Transport); }, Check, "-"),
        ("no token, its backoff over", |w| { w.fetch(); w.fail(ErrorKind::Transport); w.pass(s(1)); }, Acquire, "wait 1 s, start cold"),
        ("no token, second transient failure", |w| { w.fetch(); w.fail(ErrorKind::Transport); w.pass(s(1)); w.fetch(); w.fail(ErrorKind::Transport); }, Acquire, "failed transport, retry after 2 s"),
        ("no token, bare 429", |w| { w.fetch(); w.fail(ErrorKind::RateLimited); }, Acquire, "failed rate_limited, retry after 60 s"),
        ("no token, credentials refused", |w| { w.fetch(); w.fail(ErrorKind::InvalidClient); }, Acquire, "failed invalid_client, retry after 60 s"),
        ("no token, window reopens in 20 s", |w| { w.fetch(); w.refuse(s(20)); }, Acquire, "wait 20 s"),
        ("no token, window reopens in 40 s", |w| { w.fetch(); w.refuse(s(40)); }, Acquire, "failed rate_limited, retry after 40 s"),
        ("no token, window reopens for a refresh in 40 s", |w| { w.check(); w.refuse(s(40)); }, Acquire, "wait 1 s, start cold"),
        ("no token, a fetch was lost", |w| { w.fetch(); w.machine.fetch.lost(1, w.now); }, Check, "start cold"),
        ("no token, two fetches were lost", |w| { for n in [1, 2] { w.fetch(); w.machine.fetch.lost(n, w.now); } }, Check, "-"),
        ("no token, two fetches were lost", |w| { for n in [1, 2] { w.fetch(); w.machine.fetch.lost(n, w.now); } }, Acquire, "wait 1 s, start cold"),
        ("fresh", |w| w.aged(s(2699)), Acquire, "ready 1"),
        ("fresh", |w| w.aged(s(2699)), Check, "-"),
        ("fresh", |w| w.aged(s(2699)), Refresh, "wait 1 s, start manual"),
        ("fresh, fetch in flight", |w| { w.aged(s(0)); let mut caller = w.refresher(); w.acquire(&mut caller); }, Refresh, "wait 1 s"),
        ("fresh, rejected", |w| { w.aged(s(0)); w.machine.rejected(1, false, w.now); }, Acquire, "ready 1"),
        ("fresh, rejected", |w| { w.aged(s(0)); w.machine.rejected(1, false, w.now); }, Check, "start rejected"),
        ("fresh, rejected, as was the one before it", |w| { w.aged(s(0)); w.machine.rejected(1, false, w.now); w.check(); w.token(s(3600)); w.machine.rejected(2, false, w.now); }, Check, "-"),
        ("fresh, rejected, credentials refused", |w| { w.aged(s(0)); w.machine.rejected(1, false, w.now); w.check(); w.fail(ErrorKind::InvalidClient); }, Check, "-"),
        ("refresh due", |w| w.aged(s(2700)), Acquire, "ready 1"),
        ("refresh due", |w| w.aged(s(2700)), Check, "start ahead"),
        ("refresh due, rejected", |w| { w.aged(s(2700)); w.machine.rejected(1, false, w.now); }, Check, "start rejected"),
        ("refresh due, last fetch failed", |w| { w.aged(s(2700)); w.check(); w.fail(ErrorKind::Transport); }, Check, "-"),
        ("refresh due, window reopens in 40 s", |w| { w.aged(s(2700)); w.check(); w.refuse(s(40)); }, Check, "-"),
        ("expiring soon", |w| w.aged(s(3590)), Acquire, "wait 1 s, start expired"),
        ("expiring soon, fetch in flight", |w| { w.aged(s(3597)); w.check(); w.machine.fetch.advanced(2, w.now.monotonic + s(10)); }, Acquire, "wait 2 s"),
        ("expiring soon, last second", |w| { w.aged(s(3590)); w.check(); w.machine.fetch.advanced(2, w.now.monotonic + s(20)); w.pass(s(9)); }, Acquire, "ready 1"),
        ("expiring soon, last fetch failed", |w| { w.aged(s(3590)); w.check(); w.fail(ErrorKind::Transport); }, Acquire, "ready 1"),
        ("expiring soon, window reopens in 40 s", |w| { w.aged(s(3590)); w.fetch(); w.refuse(s(40)); }, Acquire, "ready 1"),
        ("expired", |w| w.aged(s(3600)), Acquire, "wait 1 s, start expired"),
        ("expired by the wall clock", |w| { w.aged(s(0)); w.now.wall += s(3600); }, Acquire, "wait 1 s, start expired"),
        ("expired, last fetch failed", |w| { w.aged(s(3590)); w.check(); w.fail(ErrorKind::Denied); w.pass(s(10)); }, Acquire, "failed denied, retry after 50 s"),
    ];
    for (state, set_up, event, expected) in table {
        let mut world = World::new();
        set_up(&mut world);
        let decision = match event {
            Check => match world.check() {
                Some(start) => started(&start),
                None => "-".to_owned(),
            },
            Acquire => { let mut caller = world.caller(); described(&world.acquire(&mut caller), world.now) }
            Refresh => { let mut caller = world.refresher(); described(&world.acquire(&mut caller), world.now) }
        };
        assert_eq!(decision, expected, "{state}, {event:?}");
    }
}

#[test]
fn a_caller_that_joins_a_refresh_makes_it_urgent() {
    let mut world = World::new();
    world.aged(s(2700));
    world.check();
    assert_eq!(
        world.machine.fetch.running(),
        Some((2, Urgency::Background))
    );
    world.acquire(&mut world.caller());
    assert_eq!(
        world.machine.fetch.running(),
        Some((2, Urgency::Background))
    );
    world.acquire(&mut world.refresher());
    assert_eq!(world.machine.fetch.running(), Some((2, Urgency::Waiting)));
}

/// What happens to a machine.
#[derive(Debug, Clone)]
enum Happens {
    /// Both clocks go on.
    Pass(u32),
    /// The machine is suspended: only the wall clock goes on.
    Suspend(u32),
    SetBack(u32),
    /// A new caller, in one of four places, with this much patience.
    Call {
        place: usize,
        patience: u32,
        refresh: bool,
        min_life: u32,
    },
    /// The caller in this place asks again.
    AskAgain(usize),
    Check,
    Advance(u32),
    Token(u32),
    SameToken(u32),
    Fail(u8, Option<u32>),
    Lose,
    Reject {
        old: bool,
        challenged: bool,
    },
    Accept,
}

impl Happens {
    /// Picked by two numbers, which proptest draws, and shrinks, faster than a
    /// choice among strategies.
    fn pick((kind, number): (u8, u32)) -> Self {
        let place = number as usize % 4;
        let within = |most: u32| number % most;
        match kind % 43 {
            0..2 => Self::Pass(within(2_000)),
            2..4 => Self::Pass(within(60_000)),
            4..6 => Self::Pass(within(4_000_000)),
            6..14 => Self::AskAgain(place),
            14..18 => Self::Check,
            18..24 => Self::Call {
                place,
                patience: within(40_000),
                refresh: number & 64 == 0,
                min_life: if number & 128 == 0 {
                    within(4_000_000)
                } else {
                    0
                },
            },
            24..27 => Self::Advance(within(30_000)),
            27..31 => Self::Token(within(4_000_000) + 1),
            31 => Self::SameToken(within(4_000_000) + 1),
            32..34 => Self::Fail(within(5) as u8, Some(within(4_000_000))),
            34..36 => Self::Fail(within(5) as u8, None),
            36..39 => Self::Reject {
                old: number & 1 == 0,
                challenged: number & 2 == 0,
            },
            39 => Self::Accept,
            40 => Self::Lose,
            41 => Self::Suspend(within(4_000_000)),
            _ => Self::SetBack(within(600_000)),
        }
    }
}

/// What an observer of events and decisions knows.
struct Observer {
    world: World,
    callers: [Option<Caller>; 4],
    /// The fetch that was started last and has not ended.
    in_flight: Option<u64>,
    /// Since when it may be given up, once it was seen overdue.
    overdue_at: Instant,
    /// When the newest token expires by each clock.
    ends: Option<(u64, Instant, SystemTime)>,
    began: Now,
    /// Fetches started since time last passed, by callers and by checks.
    at_once: [u32; 5],
    /// Before this no fetch starts.
    held_until: Option<Now>,
}

impl Observer {
    fn new() -> Self {
        let world = World::new();
        Self {
            callers: [None, None, None, None],
            in_flight: None,
            overdue_at: world.now.monotonic,
            ends: None,
            began: world.now,
            at_once: [0; 5],
            held_until: None,
            world,
        }
    }

    fn started(&mut self, start: &StartFetch, by: usize) {
        let now = self.world.now;
        let given_up = self.in_flight.is_none() || now.monotonic >= self.overdue_at + s(1);
        assert!(given_up, "two fetches in flight");
        if let Some(held) = self.held_until {
            let over = now.monotonic >= held.monotonic || now.wall >= held.wall;
            assert!(over, "a fetch started within a backoff");
        }
        self.at_once[by] += 1;
        assert!(self.at_once[by] <= 2, "a loop in which no time passes");
        self.in_flight = Some(start.id);
        self.overdue_at = now.monotonic + s(1);
        self.began = now;
    }

    fn ask(&mut self, place: usize) {
        let Some(mut caller) = self.callers[place].take() else {
            return;
        };
        let now = self.world.now;
        match self.world.acquire(&mut caller) {
            Decision::Ready(token) => self.serves(&token, &caller),
            Decision::Failed(error) => {
                let after = error.retry_after().unwrap_or_default();
                assert!(error.is_not_attempted() || after <= s(3600));
            }
            Decision::Wait { until, start } => {
                assert!(until > now.monotonic, "waits for what is over");
                assert!(until <= caller.deadline, "waits beyond the deadline");
                if let Some(start) = &start {
                    self.started(start, place);
                }
                self.callers[place] = Some(caller);
            }
        }
    }

    fn serves(&self, token: &AccessToken, caller: &Caller) {
        let now = self.world.now;
        let (generation, ends, ends_by_wall) = self.ends.expect("a token was published");
        assert_eq!(token.generation(), generation, "not the newest token");
        assert!(
            now.monotonic < ends && now.wall < ends_by_wall,
            "an expired token"
        );
        assert!(caller.newer_than.is_none_or(|old| generation > old));
    }

    fn ended(&mut self, completed: Option<Completed>, life: Duration) {
        match completed {
            // It was given up.
            None => {}
            Some(Completed::Published { issued, .. }) => {
                let last = self.ends.map_or(0, |(generation, ..)| generation);
                assert_eq!(issued.token.generation(), last + 1);
                let (ends, by_wall) = (self.began.monotonic + life, self.began.wall + life);
                self.ends = Some((last + 1, ends, by_wall));
                self.held_until = None;
                self.in_flight = None;
            }
            Some(Completed::Failed(error)) => {
                let after = error.retry_after().expect("says when to ask again");
                // A place in line may be hours away.
                assert!(after >= ms(100) && (error.is_not_attempted() || after <= s(3600)));
                self.in_flight = None;
                self.held_until = None;
                if !error.is_not_attempted() {
                    let now = self.world.now;
                    self.held_until = Some(Now {
                        monotonic: now.monotonic + after,
                        wall: now.wall + after,
                    });
                }
            }
        }
    }

    fn token(&mut self, name: String, life: u32) {
        let life = ms(life.into());
        if self.in_flight.is_some() {
            let completed = self
                .world
                .complete(Ok(AccessToken::bearer(name, life).unwrap()));
            self.ended(completed, life);
        }
    }

    fn happens(&mut self, event: &Happens) {
        let world = &mut self.world;
        match *event {
            Happens::Pass(0) | Happens::Suspend(0) => {}
            Happens::Pass(time) => {
                world.pass(ms(time.into()));
                self.at_once = [0; 5];
            }
            Happens::Suspend(time) => {
                world.now.wall += ms(time.into());
                self.at_once = [0; 5];
            }
            Happens::SetBack(time) => {
                world.now.wall -= ms(time.into());
                // By the monotonic clock everything ends as before.
                if let Some((_, _, by_wall)) = &mut self.ends {
                    *by_wall = world.now.wall + s(1_000_000);
                }
                if let Some(held) = &mut self.held_until {
                    held.wall = held.wall.min(world.now.wall);
                }
            }
            Happens::Call {
                place,
                patience,
                refresh,
                min_life,
            } => {
                let mut caller = if refresh {
                    world.refresher()
                } else {
                    world.caller()
                };
                caller.deadline = world.now.monotonic + ms(patience.into());
                caller.min_life = ms(min_life.into());
                self.callers[place] = Some(caller);
                self.at_once[place] = 0;
                self.ask(place);
            }
            Happens::AskAgain(place) => self.ask(place),
            Happens::Check => {
                if let Some(start) = world.check() {
                    let running = world.machine.fetch.running();
                    assert_eq!(running, Some((start.id, Urgency::Background)));
                    self.started(&start, 4);
                }
            }
            Happens::Advance(time) => {
                let until = world.now.monotonic + ms(time.into());
                let id = world.fetch;
                if world.machine.fetch.advanced(id, until) {
                    assert_eq!(self.in_flight, Some(id), "a fetch that was given up sends");
                    self.overdue_at = until;
                }
            }
            Happens::Token(life) => {
                let name = format!("token-{}", world.fetch);
                self.token(name, life);
            }
            Happens::SameToken(life) => self.token("same".to_owned(), life),
            Happens::Fail(kind, after) => {
                let kind = [
                    ErrorKind::Transport,
                    ErrorKind::InvalidClient,
                    ErrorKind::RateLimited,
                    ErrorKind::Timeout,
                    ErrorKind::RateLimited,
                ][usize::from(kind)];
                let mut error = Error::new(kind, "failed");
                if let Some(after) = after {
                    error = error.with_retry_after(ms(after.into()));
                    if kind == ErrorKind::RateLimited && after % 2 == 0 {
                        error = error.not_attempted();
                    }
                }
                if self.in_flight.is_some() {
                    let completed = world.complete(Err(error));
                    self.ended(completed, s(0));
                }
            }
            Happens::Lose => {
                let (fetch, now) = (world.fetch, world.now);
                if world.machine.fetch.lost(fetch, now) {
                    self.in_flight = None;
                }
            }
            Happens::Reject { old, challenged } => {
                let newest = self.ends.map_or(0, |(generation, ..)| generation);
                let generation = newest.saturating_sub(old.into());
                let due = world.machine.rejected(generation, challenged, world.now);
                assert!(due.is_none() || !old);
                // What a server says may start a fetch at once.
                self.at_once = [0; 5];
            }
            Happens::Accept => {
                let newest = self.ends.map_or(0, |(generation, ..)| generation);
                world.machine.accepted(newest);
            }
        }
        self.holds();
    }

    /// What holds after each event.
    fn holds(&self) {
        let (machine, now) = (&self.world.machine, self.world.now);
        let status = machine.status(0, now);
        let caller = self.world.caller();
        let usable = machine.usable(&caller, now);
        assert_eq!(status.has_token(), usable.is_some());
        if let Some(token) = usable {
            self.serves(&token.token, &caller);
        }
        // An event asks for a place at most 4,000 s away.
        assert!(status.next_attempt_in.is_none_or(|wait| wait <= s(4000)));
        assert_eq!(status.last_error.is_some(), status.consecutive_failures > 0);
    }
}

/// Cases of 100 events each.
fn cases() -> u32 {
    let events = std::env::var("LIFECYCLE_EVENTS").ok();
    let events = events
        .and_then(|text| text.parse().ok())
        .unwrap_or(50_000u32);
    events.div_ceil(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..Default::default() })]
    #[test]
    fn invariants_hold_whatever_happens(
        events in proptest::collection::vec((any::<u8>(), any::<u32>()), 100),
    ) {
        let mut observer = Observer::new();
        for event in events.into_iter().map(Happens::pick) {
            observer.happens(&event);
        }
    }
}
