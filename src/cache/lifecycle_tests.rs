//! The decision table, and the invariants under random events.
//!
//! `LIFECYCLE_EVENTS=10000000 cargo test --all-features --lib lifecycle` runs ten million events, in
//! less than a minute on one core. The default is 50,000.
#![expect(clippy::disallowed_methods, reason = "any starting point will do")]

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::settings as config;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type Act<R = ()> = fn(&mut World) -> R;

/// A machine without jitter, and the clocks.
struct World {
    machine: Lifecycle,
    now: Now,
    /// When the last fetch started.
    born: Now,
}

impl World {
    fn new() -> Self {
        let settings = CacheSettings {
            jitter: 0.0,
            ..CacheSettings::from(&config::Settings::default())
        };
        let now = Now {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        };
        Self {
            machine: Lifecycle::new(settings, Weak::new(), now),
            now,
            born: now,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    fn generation(&self) -> u64 {
        let token = self.machine.token.as_ref();
        token.map_or(0, |token| token.generation())
    }

    fn caller(&self) -> Caller {
        Caller::new(0, self.now.monotonic + s(30))
    }

    fn refresher(&self) -> Caller {
        Caller::new(self.generation(), self.now.monotonic + s(30))
    }

    fn acquire(&mut self, caller: &mut Caller) -> Decision {
        let decision = self.machine.acquire(caller, self.now);
        if let Decision::Wait { start: Some(_), .. } = &decision {
            self.born = self.now;
        }
        decision
    }

    fn check(&mut self) -> Option<Start> {
        let start = self.machine.check(self.now);
        if start.is_some() {
            self.born = self.now;
        }
        start
    }

    fn end(
        &mut self,
        number: u64,
        result: Result<AccessToken, Error>,
    ) -> Option<Result<Arc<Token>, Error>> {
        let result = result.map(|access| (access, self.born));
        self.machine.ended(number, result, (self.now, 1.0))
    }

    fn complete(&mut self, result: Result<AccessToken, Error>) {
        self.end(self.machine.newest, result);
    }

    fn fail(&mut self, kind: ErrorKind) {
        self.complete(Err(Error::new(kind, "failed")));
    }

    /// Fails without a request.
    fn refuse(&mut self, kind: ErrorKind, after: Duration) {
        let error = Error::new(kind, "refused").with_retry_after(after);
        self.complete(Err(error.not_attempted()));
    }

    fn token(&mut self, life: Duration) {
        let name = format!("token-{}", self.machine.newest);
        self.complete(Ok(AccessToken::bearer(name, life).unwrap()));
    }

    fn fetch(&mut self) {
        let mut caller = self.caller();
        self.acquire(&mut caller);
    }

    /// Tells the machine that the newest fetch stops after this time.
    fn stops_in(&mut self, time: Duration) -> bool {
        let until = self.now.monotonic + time;
        self.machine.move_stop(self.machine.newest, until)
    }

    fn lose(&mut self) -> bool {
        self.machine.lost(self.machine.newest, self.now)
    }

    /// Rejects the current token. Returns the time until its replacement if that is its first 401.
    fn reject(&mut self) -> Option<Duration> {
        let (_, delay) = self.machine.rejected(self.generation(), self.now)?;
        Some(delay)
    }

    /// Adds a token of 3,600 s with this age. It is due at 2,700 s and not used from 3,590 s on.
    fn aged(&mut self, age: Duration) {
        self.fetch();
        self.token(s(3600));
        self.pass(age);
    }

    /// Rejects and replaces the token.
    fn replaced(&mut self) {
        self.reject();
        self.check();
        self.token(s(3600));
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn started(start: &Start) -> String {
    let cause = start.cause.as_str();
    match start.class {
        Some((class, _)) => format!("start {cause} as {class:?}"),
        None => format!("start {cause} as {:?}", *start.urgency.borrow()),
    }
}

/// Describes a decision, as in ARCHITECTURE.md.
fn described(decision: &Decision, now: Now) -> String {
    match decision {
        Decision::Ready(token) => format!("token {}", token.generation()),
        Decision::Failed(error) => match error.retry_after() {
            Some(after) => format!("error {}, again in {}", error.kind(), seconds(after)),
            None => format!("error {}", error.kind()),
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

fn decision(world: &mut World, mut caller: Caller) -> String {
    described(&world.acquire(&mut caller), world.now)
}

/// A new caller wants a token.
fn acquire(world: &mut World) -> String {
    decision(world, world.caller())
}

/// A new caller wants a newer token than the current one.
fn refresh(world: &mut World) -> String {
    decision(world, world.refresher())
}

/// A replay wants a newer token than the current one.
fn replay(world: &mut World) -> String {
    let deadline = world.now.monotonic + s(30);
    decision(world, Caller::replay(world.generation(), deadline))
}

/// A request with a token, or the timer.
fn check(world: &mut World) -> String {
    let start = world.check();
    start.map_or_else(|| "-".to_owned(), |start| started(&start))
}

#[test]
#[rustfmt::skip]
fn decision_table() {
    use ErrorKind::{Denied, InvalidClient, RateLimited, Transport};

    let table: [(&str, Act, Act<String>, &str); 36] = [
        ("no token", |_| {}, acquire, "wait 1 s, start cold as Waiting"),
        ("no token", |_| {}, check, "start cold as Background"),
        ("no token, fetch not begun", |w| w.fetch(), acquire, "wait 1 s"),
        ("no token, fetch not begun for 1 s", |w| { w.fetch(); w.pass(s(1)); }, acquire, "wait 1 s, start cold as Waiting"),
        ("no token, fetch waits for a permit", |w| { w.fetch(); w.stops_in(s(30)); }, acquire, "wait 30 s"),
        ("no token, fetch waits for a permit", |w| { w.fetch(); w.stops_in(s(30)); }, check, "-"),
        ("no token, fetch sent 9 s ago", |w| { w.fetch(); w.stops_in(s(10)); w.pass(s(9)); }, acquire, "wait 6 s"),
        ("no token, fetch overdue", |w| { w.fetch(); w.stops_in(s(10)); w.pass(s(15)); }, acquire, "wait 1 s, start cold as Waiting"),
        ("no token, first transient failure", |w| { w.fetch(); w.fail(Transport); }, acquire, "error transport, again in 1 s"),
        ("no token, first transient failure", |w| { w.fetch(); w.fail(Transport); }, check, "-"),
        ("no token, backoff has ended", |w| { w.fetch(); w.fail(Transport); w.pass(s(1)); }, acquire, "wait 1 s, start cold as Waiting"),
        ("no token, backoff after a permanent failure has ended", |w| { w.fetch(); w.fail(Denied); w.pass(s(60)); }, acquire, "wait 1 s, start cold as Failing"),
        ("no token, no permit for 20 s", |w| { w.fetch(); w.refuse(RateLimited, s(20)); }, acquire, "wait 20 s"),
        ("no token, no permit for 40 s", |w| { w.fetch(); w.refuse(RateLimited, s(40)); }, acquire, "error rate_limited, again in 40 s"),
        ("no token, no permit for a refresh for 40 s", |w| { w.check(); w.refuse(RateLimited, s(40)); }, acquire, "wait 1 s, start cold as Waiting"),
        ("no token, refused credentials are not sent again", |w| { w.fetch(); w.refuse(InvalidClient, s(5)); }, acquire, "error invalid_client, again in 5 s"),
        ("no token, a fetch was lost", |w| { w.fetch(); w.lose(); }, check, "start cold as Background"),
        ("no token, two fetches were lost", |w| { for _ in 0..2 { w.fetch(); w.lose(); } }, check, "-"),
        ("no token, two fetches were lost", |w| { for _ in 0..2 { w.fetch(); w.lose(); } }, acquire, "wait 1 s, start cold as Waiting"),
        ("fresh", |w| w.aged(s(2699)), acquire, "token 1"),
        ("fresh", |w| w.aged(s(2699)), check, "-"),
        ("fresh", |w| w.aged(s(2699)), refresh, "wait 1 s, start manual as Waiting"),
        ("fresh, 401", |w| { w.aged(s(0)); w.reject(); }, acquire, "token 1"),
        ("fresh, 401", |w| { w.aged(s(0)); w.reject(); }, check, "start rejected as Rejected"),
        ("fresh, 401", |w| { w.aged(s(0)); w.reject(); }, replay, "wait 1 s, start rejected as Rejected"),
        ("fresh, 401, no permit for 20 s", |w| { w.aged(s(0)); w.reject(); w.check(); w.refuse(RateLimited, s(20)); }, replay, "wait 20 s"),
        ("fresh, 401 like its predecessor", |w| { w.aged(s(0)); w.replaced(); w.reject(); }, check, "-"),
        ("fresh, 401 like its predecessor", |w| { w.aged(s(0)); w.replaced(); w.reject(); }, replay, "error timeout"),
        ("fresh, 401 like its predecessor 1 min ago", |w| { w.aged(s(0)); w.replaced(); w.reject(); w.pass(s(60)); }, check, "start rejected as Rejected"),
        ("refresh due", |w| w.aged(s(2700)), acquire, "token 1"),
        ("refresh due", |w| w.aged(s(2700)), check, "start ahead as Background"),
        ("refresh due, 401", |w| { w.aged(s(2700)); w.reject(); }, check, "start rejected as Background"),
        ("refresh due, last fetch failed", |w| { w.aged(s(2700)); w.check(); w.fail(Transport); }, check, "-"),
        ("in its last 10 s", |w| w.aged(s(3590)), acquire, "wait 1 s, start expired as Waiting"),
        ("expired by the wall clock", |w| { w.aged(s(0)); w.now.wall += s(3590); }, acquire, "wait 1 s, start expired as Waiting"),
        ("expired, last fetch failed", |w| { w.aged(s(3580)); w.check(); w.fail(Denied); w.pass(s(10)); }, acquire, "error denied, again in 50 s"),
    ];
    for (state, set_up, call, expected) in table {
        let mut world = World::new();
        set_up(&mut world);
        assert_eq!(call(&mut world), expected, "{state}");
    }
}

/// Returns the time until a background fetch is due.
fn due_in(world: &World) -> Duration {
    world.machine.next_check_at(world.now) - world.now.monotonic
}

#[test]
fn a_caller_that_joins_a_refresh_makes_it_urgent_but_a_replay_does_not() {
    let mut world = World::new();
    world.aged(s(2700));
    let start = world.check().unwrap();
    replay(&mut world);
    assert_eq!(*start.urgency.borrow(), Urgency::Background);
    refresh(&mut world);
    assert_eq!(*start.urgency.borrow(), Urgency::Waiting);
}

#[test]
fn a_transient_backoff_ends_with_the_token_unless_retry_after_is_longer() {
    for (asked, due) in [(None, s(2)), (Some(s(1)), s(2)), (Some(s(15)), s(15))] {
        let mut world = World::new();
        world.aged(s(3587));
        world.check();
        world.fail(ErrorKind::Transport);
        assert_eq!(due_in(&world), s(1));
        world.pass(s(1));
        world.check();
        // The backoff of a second failure is 4 s, and the token ends in 2 s.
        let mut error = Error::new(ErrorKind::Transport, "down");
        if let Some(asked) = asked {
            error = error.with_retry_after(asked);
        }
        world.complete(Err(error));
        assert_eq!(due_in(&world), due, "{asked:?}");
    }
}

#[test]
fn a_failure_is_returned_to_the_callers_that_joined_its_fetch() {
    let mut world = World::new();
    let mut early = world.caller();
    world.acquire(&mut early);
    // The first fetch does not begin.
    world.pass(s(1));
    let mut late = world.caller();
    world.acquire(&mut late);
    assert_eq!(world.machine.newest, 2);
    world.fail(ErrorKind::Denied);
    // The backoff has ended.
    world.pass(s(60));
    early.deadline += s(90);
    assert_eq!(decision(&mut world, late), "error denied, again in 0 s");
    let starts = "wait 1 s, start cold as Failing";
    assert_eq!(decision(&mut world, early), starts);
}

#[test]
fn a_fetch_that_was_given_up_gets_no_permit_and_its_result_is_dropped() {
    let mut world = World::new();
    world.fetch();
    world.pass(s(1));
    assert!(world.check().is_some());
    assert!(!world.machine.move_stop(1, world.now.monotonic + s(10)));
    assert_eq!(due_in(&world), s(1), "of the second fetch");
    let token = AccessToken::bearer("late", s(60)).unwrap();
    assert!(world.end(1, Ok(token)).is_none());
    assert!(!world.machine.lost(1, world.now));
    assert!(world.stops_in(s(10)));
}

#[test]
fn only_consecutive_lost_fetches_delay_the_next() {
    let ends: [Act; 2] = [|w| w.token(s(60)), |w| w.fail(ErrorKind::Transport)];
    for end in ends {
        let mut world = World::new();
        for _ in 1..=3 {
            world.fetch();
            assert!(world.lose());
        }
        assert!(world.check().is_none());
        world.fetch();
        end(&mut world);
        world.pass(s(60));
        world.fetch();
        assert!(world.lose());
        assert!(world.check().is_some());
    }
}

#[test]
fn a_token_requested_before_the_last_401_adds_no_step() {
    let mut world = World::new();
    world.aged(s(2700));
    // Its refresh is in flight when the 401 comes.
    world.check();
    assert_eq!(world.reject(), Some(s(0)));
    world.token(s(3600));
    assert_eq!(world.reject(), Some(s(0)));
    world.check();
    world.token(s(3600));
    assert_eq!(world.reject(), Some(s(60)));
}

#[test]
fn a_reissued_token_is_new_if_it_is_valid_for_longer() {
    #[rustfmt::skip]
    let table = [
        // left before, lifetime now, time on its way -> due after, not used after
        (s(900), s(3600), s(0), s(2700), s(3590)),
        (s(300), s(600), s(0), s(300), s(590)),
        (s(300), s(302), s(0), s(151), s(292)),
        (s(300), s(301), s(0), s(301), s(301)),
        (s(300), s(300), s(0), s(300), s(300)),
        (s(300), s(300), s(5), s(295), s(295)),
        (s(300), s(299), s(0), s(299), s(299)),
    ];
    for (left, life, on_its_way, due, end) in table {
        let mut world = World::new();
        let same = |life| Ok(AccessToken::bearer("same", life).unwrap());
        world.fetch();
        world.complete(same(s(3600)));
        world.pass(s(3600) - left);
        world.acquire(&mut world.refresher());
        world.pass(on_its_way);
        world.complete(same(life));
        let token = world.machine.token.clone().unwrap();
        assert_eq!(token.generation(), 2);
        let [due_at, ends_at] = [token.due_at(world.now), token.ends_at(world.now)];
        let from_now = [due_at, ends_at].map(|at| at - world.now.monotonic);
        assert_eq!(from_now, [due, end], "{left:?} {life:?}");
    }
}

/// Applies random events, and records only what is visible from outside the machine.
struct Observer {
    world: World,
    callers: [Option<Caller>; 4],
    /// The last fetch, if it has not ended, and when it may be given up.
    in_flight: Option<(u64, Instant)>,
    /// When the newest token expires by each clock.
    ends: Option<(u64, Instant, SystemTime)>,
    /// Fetches that callers and checks have started since time last passed.
    at_once: [u32; 5],
    /// The time before which no fetch starts.
    held_until: Option<Instant>,
    /// The delay after the last 401 that was the first to its token.
    delay: Duration,
}

impl Observer {
    fn new() -> Self {
        Self {
            world: World::new(),
            callers: [None, None, None, None],
            in_flight: None,
            ends: None,
            at_once: [0; 5],
            held_until: None,
            delay: s(0),
        }
    }

    fn started(&mut self, start: &Start, by: usize) {
        let now = self.world.now.monotonic;
        let given_up = self.in_flight.is_none_or(|(_, overdue)| now >= overdue);
        assert!(given_up, "two fetches in flight");
        let held = self.held_until.is_some_and(|until| now < until);
        assert!(!held, "a fetch started within a backoff");
        assert_eq!(start.deadline, now + s(30));
        self.at_once[by] += 1;
        assert!(self.at_once[by] <= 2, "a loop in which no time passes");
        self.in_flight = Some((start.number, now + s(1)));
    }

    fn ask(&mut self, caller_index: usize) {
        let Some(mut caller) = self.callers[caller_index].take() else {
            return;
        };
        let now = self.world.now;
        match self.world.acquire(&mut caller) {
            Decision::Ready(token) => self.uses(&token, caller.newer_than),
            Decision::Failed(error) => {
                // The longest `retry_after` of an event.
                assert!(error.retry_after().unwrap_or_default() <= s(4000));
            }
            Decision::Wait { until, start } => {
                assert!(until > now.monotonic, "waits for a time in the past");
                assert!(until <= caller.deadline, "waits beyond the deadline");
                if let Some(start) = &start {
                    self.started(start, caller_index);
                }
                self.callers[caller_index] = Some(caller);
            }
        }
    }

    fn uses(&self, token: &Token, newer_than: u64) {
        let now = self.world.now;
        let (generation, ends, ends_by_wall) = self.ends.expect("a token was published");
        assert_eq!(token.generation(), generation, "not the newest token");
        assert!(
            now.monotonic < ends && now.wall < ends_by_wall,
            "an expired token"
        );
        assert!(generation > newer_than);
    }

    fn returns(&mut self, token: String, life: Duration) {
        self.ended(Ok(AccessToken::bearer(token, life).unwrap()));
    }

    fn ended(&mut self, result: Result<AccessToken, Error>) {
        let Some((number, _)) = self.in_flight else {
            return;
        };
        let life = result.as_ref().map_or(s(0), AccessToken::expires_in);
        match self.world.end(number, result) {
            // The fetch was given up.
            None => {}
            Some(Ok(token)) => {
                let last = self.ends.map_or(0, |(generation, ..)| generation);
                assert_eq!(token.generation(), last + 1);
                let born = self.world.born;
                self.ends = Some((last + 1, born.monotonic + life, born.wall + life));
                self.held_until = None;
                self.in_flight = None;
            }
            Some(Err(error)) => {
                let after = error.retry_after().expect("the time until the next fetch");
                // The turn of a fetch in the queue may be hours away.
                assert!(after >= ms(100) && (error.is_not_attempted() || after <= s(3600)));
                self.in_flight = None;
                let until = self.world.now.monotonic + after;
                self.held_until = (!error.is_not_attempted()).then_some(until);
            }
        }
    }

    /// Records when the fetch stops.
    fn stops_in(&mut self, time: Duration) {
        if let Some((number, overdue)) = &mut self.in_flight {
            let until = self.world.now.monotonic + time;
            if self.world.machine.move_stop(*number, until) {
                *overdue = until + s(5);
            }
        }
    }

    fn rejects(&mut self, old: bool) {
        let generation = self.world.generation().saturating_sub(old.into());
        let rejected = self.world.machine.rejected(generation, self.world.now);
        assert!(rejected.is_none() || !old);
        if let Some((_, delay)) = rejected {
            assert!([0, 1, 2, 4, 8, 10].contains(&(delay.as_secs() / 60)));
            assert!(delay <= self.delay * 2 + s(60), "a step left out");
            self.delay = delay;
        }
        // A 401 may start a fetch at once.
        self.at_once = [0; 5];
    }

    /// Applies the event of two numbers. proptest draws and shrinks numbers faster than strategies.
    fn happens(&mut self, (kind, number): (u8, u32)) {
        let caller_index = number as usize % 4;
        let within = |most: u32| ms((number % most).into());
        let world = &mut self.world;
        match kind % 44 {
            // Time passes, the machine is suspended, the wall clock is set back.
            kind @ (0..6 | 42 | 43) => {
                let before = world.now;
                match kind {
                    0..2 => world.pass(within(2_000)),
                    2..4 => world.pass(within(60_000)),
                    4..6 => world.pass(within(4_000_000)),
                    42 => world.now.wall += within(4_000_000),
                    _ => world.now.wall -= within(600_000),
                }
                if world.now != before {
                    self.at_once = [0; 5];
                }
            }
            6..14 => self.ask(caller_index),
            14..18 => {
                if let Some(start) = world.check() {
                    assert_eq!(*start.urgency.borrow(), Urgency::Background);
                    self.started(&start, 4);
                }
            }
            18..24 => {
                let deadline = world.now.monotonic + within(40_000);
                let generation = world.generation();
                self.callers[caller_index] = Some(match (number & 64 == 0, number & 128 == 0) {
                    (true, true) => Caller::replay(generation, deadline),
                    (true, false) => Caller::new(generation, deadline),
                    (false, _) => Caller::new(0, deadline),
                });
                self.at_once[caller_index] = 0;
                self.ask(caller_index);
            }
            24..28 => self.stops_in(within(40_000)),
            28..32 => {
                let name = format!("token-{}", world.machine.newest);
                self.returns(name, within(4_000_000) + ms(1));
            }
            32 => self.returns("same".to_owned(), within(4_000_000) + ms(1)),
            kind @ 33..37 => {
                let of = [
                    ErrorKind::Transport,
                    ErrorKind::InvalidClient,
                    ErrorKind::RateLimited,
                    ErrorKind::Timeout,
                    ErrorKind::RateLimited,
                ];
                let mut error = Error::new(of[number as usize % 5], "failed");
                if kind < 35 {
                    error = error.with_retry_after(within(4_000_000));
                    if number & 1 == 0 {
                        error = error.not_attempted();
                    }
                }
                self.ended(Err(error));
            }
            37..=40 => self.rejects(number & 1 == 0),
            _ => {
                if world.lose() {
                    self.in_flight = None;
                    self.held_until = None;
                }
            }
        }
        self.check_invariants();
    }

    /// Checks what holds after each event.
    fn check_invariants(&self) {
        let (machine, now) = (&self.world.machine, self.world.now);
        let status = machine.status(0, now);
        let usable = machine.usable(0, now);
        assert_eq!(status.has_token(), usable.is_some());
        if let Some(token) = usable {
            self.uses(token, 0);
        }
        assert!(status.next_attempt_in.is_none_or(|wait| wait <= s(4000)));
        assert_eq!(status.last_error.is_some(), status.consecutive_failures > 0);
    }
}

/// Returns the number of cases, of 100 events each.
fn cases() -> u32 {
    let events = std::env::var("LIFECYCLE_EVENTS").ok();
    let events = events.and_then(|text| text.parse().ok());
    events.unwrap_or(50_000u32).div_ceil(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..Default::default() })]
    #[test]
    fn invariants_hold_after_random_events(
        events in proptest::collection::vec((any::<u8>(), any::<u32>()), 100),
    ) {
        let mut observer = Observer::new();
        events.into_iter().for_each(|event| observer.happens(event));
    }
}
