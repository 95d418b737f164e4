//! The decision table, and the invariants under random events.
//!
//! `LIFECYCLE_EVENTS=10000000 cargo test --all-features --lib lifecycle` drives
//! ten million events through the machine, in less than a minute on one core;
//! without it there are 50,000.
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
        let settings = Settings {
            jitter: 0.0,
            ..Settings::from(&config::Settings::default())
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

    /// Fails with an error that says that nothing was sent.
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

    /// Tells the machine that the newest fetch stops in this time.
    fn stops_in(&mut self, time: Duration) -> bool {
        let until = self.now.monotonic + time;
        self.machine.stops_at(self.machine.newest, until)
    }

    fn lose(&mut self) -> bool {
        self.machine.lost(self.machine.newest, self.now)
    }

    /// A 401 to the current token. In how long it is replaced, if that is its first.
    fn reject(&mut self) -> Option<Duration> {
        let (_, delay) = self.machine.rejected(self.generation(), self.now)?;
        Some(delay)
    }

    /// A token of 3,600 s, this old: due at 2,700 s, not sent from 3,590 s on.
    fn aged(&mut self, age: Duration) {
        self.fetch();
        self.token(s(3600));
        self.pass(age);
    }

    /// The token is answered 401 and replaced.
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
    let place = match (start.class, *start.urgency.borrow()) {
        (Some((Class::Failing, _)), _) => "last",
        (Some(_), _) => "third",
        (None, Urgency::Background) => "second",
        (None, Urgency::Waiting) => "first",
    };
    format!("start {cause}, {place} in line")
}

/// A decision in one line, as ARCHITECTURE.md has it.
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

fn asks(world: &mut World, mut caller: Caller) -> String {
    described(&world.acquire(&mut caller), world.now)
}

/// A new caller asks for a token.
fn acquire(world: &mut World) -> String {
    asks(world, world.caller())
}

/// A new caller asks for a newer token than the current one.
fn refresh(world: &mut World) -> String {
    asks(world, world.refresher())
}

/// A replay asks for a newer token than the current one.
fn replay(world: &mut World) -> String {
    let deadline = world.now.monotonic + s(30);
    asks(world, Caller::replay(world.generation(), deadline))
}

/// A request looks at its token, or the timer has fired.
fn check(world: &mut World) -> String {
    let start = world.check();
    start.map_or_else(|| "-".to_owned(), |start| started(&start))
}

#[test]
#[rustfmt::skip]
fn decision_table() {
    use ErrorKind::{Denied, InvalidClient, RateLimited, Transport};

    let table: [(&str, Act, Act<String>, &str); 36] = [
        ("no token", |_| {}, acquire, "wait 1 s, start cold, first in line"),
        ("no token", |_| {}, check, "start cold, second in line"),
        ("no token, fetch not begun", |w| w.fetch(), acquire, "wait 1 s"),
        ("no token, fetch not begun for 1 s", |w| { w.fetch(); w.pass(s(1)); }, acquire, "wait 1 s, start cold, first in line"),
        ("no token, fetch in line", |w| { w.fetch(); w.stops_in(s(30)); }, acquire, "wait 30 s"),
        ("no token, fetch in line", |w| { w.fetch(); w.stops_in(s(30)); }, check, "-"),
        ("no token, fetch sent 9 s ago", |w| { w.fetch(); w.stops_in(s(10)); w.pass(s(9)); }, acquire, "wait 6 s"),
        ("no token, fetch overdue", |w| { w.fetch(); w.stops_in(s(10)); w.pass(s(15)); }, acquire, "wait 1 s, start cold, first in line"),
        ("no token, first transient failure", |w| { w.fetch(); w.fail(Transport); }, acquire, "error transport, again in 1 s"),
        ("no token, first transient failure", |w| { w.fetch(); w.fail(Transport); }, check, "-"),
        ("no token, the backoff is over", |w| { w.fetch(); w.fail(Transport); w.pass(s(1)); }, acquire, "wait 1 s, start cold, first in line"),
        ("no token, the backoff after a lasting failure is over", |w| { w.fetch(); w.fail(Denied); w.pass(s(60)); }, acquire, "wait 1 s, start cold, last in line"),
        ("no token, no turn for 20 s", |w| { w.fetch(); w.refuse(RateLimited, s(20)); }, acquire, "wait 20 s"),
        ("no token, no turn for 40 s", |w| { w.fetch(); w.refuse(RateLimited, s(40)); }, acquire, "error rate_limited, again in 40 s"),
        ("no token, no turn for a refresh for 40 s", |w| { w.check(); w.refuse(RateLimited, s(40)); }, acquire, "wait 1 s, start cold, first in line"),
        ("no token, the credentials are known as refused", |w| { w.fetch(); w.refuse(InvalidClient, s(5)); }, acquire, "error invalid_client, again in 5 s"),
        ("no token, a fetch was lost", |w| { w.fetch(); w.lose(); }, check, "start cold, second in line"),
        ("no token, two fetches were lost", |w| { for _ in 0..2 { w.fetch(); w.lose(); } }, check, "-"),
        ("no token, two fetches were lost", |w| { for _ in 0..2 { w.fetch(); w.lose(); } }, acquire, "wait 1 s, start cold, first in line"),
        ("fresh", |w| w.aged(s(2699)), acquire, "token 1"),
        ("fresh", |w| w.aged(s(2699)), check, "-"),
        ("fresh", |w| w.aged(s(2699)), refresh, "wait 1 s, start manual, first in line"),
        ("fresh, 401", |w| { w.aged(s(0)); w.reject(); }, acquire, "token 1"),
        ("fresh, 401", |w| { w.aged(s(0)); w.reject(); }, check, "start rejected, third in line"),
        ("fresh, 401", |w| { w.aged(s(0)); w.reject(); }, replay, "wait 1 s, start rejected, third in line"),
        ("fresh, 401, no turn for 20 s", |w| { w.aged(s(0)); w.reject(); w.check(); w.refuse(RateLimited, s(20)); }, replay, "wait 20 s"),
        ("fresh, 401, as its predecessor", |w| { w.aged(s(0)); w.replaced(); w.reject(); }, check, "-"),
        ("fresh, 401, as its predecessor", |w| { w.aged(s(0)); w.replaced(); w.reject(); }, replay, "error timeout"),
        ("fresh, 401, as its predecessor a minute ago", |w| { w.aged(s(0)); w.replaced(); w.reject(); w.pass(s(60)); }, check, "start rejected, third in line"),
        ("refresh due", |w| w.aged(s(2700)), acquire, "token 1"),
        ("refresh due", |w| w.aged(s(2700)), check, "start ahead, second in line"),
        ("refresh due, 401", |w| { w.aged(s(2700)); w.reject(); }, check, "start rejected, second in line"),
        ("refresh due, last fetch failed", |w| { w.aged(s(2700)); w.check(); w.fail(Transport); }, check, "-"),
        ("in its last 10 s", |w| w.aged(s(3590)), acquire, "wait 1 s, start expired, first in line"),
        ("expired by the wall clock", |w| { w.aged(s(0)); w.now.wall += s(3590); }, acquire, "wait 1 s, start expired, first in line"),
        ("expired, last fetch failed", |w| { w.aged(s(3580)); w.check(); w.fail(Denied); w.pass(s(10)); }, acquire, "error denied, again in 50 s"),
    ];
    for (state, set_up, asks, expected) in table {
        let mut world = World::new();
        set_up(&mut world);
        assert_eq!(asks(&mut world), expected, "{state}");
    }
}

/// How long until something is due in the background.
fn due_in(world: &World) -> Duration {
    world.machine.next_check_at(world.now) - world.now.monotonic
}

#[test]
fn a_caller_that_joins_a_refresh_makes_it_urgent_and_a_replay_does_not() {
    let mut world = World::new();
    world.aged(s(2700));
    let start = world.check().unwrap();
    replay(&mut world);
    assert_eq!(*start.urgency.borrow(), Urgency::Background);
    refresh(&mut world);
    assert_eq!(*start.urgency.borrow(), Urgency::Waiting);
}

#[test]
fn a_transient_backoff_ends_with_the_token_unless_the_server_asks_for_longer() {
    for (asked, due) in [(None, s(2)), (Some(s(1)), s(2)), (Some(s(15)), s(15))] {
        let mut world = World::new();
        world.aged(s(3587));
        world.check();
        world.fail(ErrorKind::Transport);
        assert_eq!(due_in(&world), s(1));
        world.pass(s(1));
        world.check();
        // By itself a second failure holds for 4 s, and the token ends in 2 s.
        let mut error = Error::new(ErrorKind::Transport, "down");
        if let Some(asked) = asked {
            error = error.with_retry_after(asked);
        }
        world.complete(Err(error));
        assert_eq!(due_in(&world), due, "{asked:?}");
    }
}

#[test]
fn a_failure_is_the_answer_to_those_who_waited_for_its_fetch_and_to_no_others() {
    let mut world = World::new();
    let mut early = world.caller();
    world.acquire(&mut early);
    // The runtime of the first fetch is gone.
    world.pass(s(1));
    let mut late = world.caller();
    world.acquire(&mut late);
    assert_eq!(world.machine.newest, 2);
    world.fail(ErrorKind::Denied);
    // Both ask when the backoff is over.
    world.pass(s(60));
    early.deadline += s(90);
    assert_eq!(asks(&mut world, late), "error denied, again in 0 s");
    let starts = "wait 1 s, start cold, last in line";
    assert_eq!(asks(&mut world, early), starts);
}

#[test]
fn a_fetch_that_was_given_up_gets_no_permit_and_its_result_is_dropped() {
    let mut world = World::new();
    world.fetch();
    world.pass(s(1));
    assert!(world.check().is_some());
    assert!(!world.machine.stops_at(1, world.now.monotonic + s(10)));
    assert_eq!(due_in(&world), s(1), "of the second fetch");
    let token = AccessToken::bearer("late", s(60)).unwrap();
    assert!(world.end(1, Ok(token)).is_none());
    assert!(!world.machine.lost(1, world.now));
    assert!(world.stops_in(s(10)));
}

#[test]
fn only_fetches_in_a_row_without_a_result_delay_the_next() {
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
fn a_token_that_was_requested_before_the_last_401_adds_no_step() {
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
fn a_token_that_is_issued_again_is_a_new_one_if_it_brings_more_life() {
    #[rustfmt::skip]
    let table = [
        // left before, life now, on its way -> due after, not sent after
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

/// Draws random events, and knows what an observer of them and of the decisions knows.
struct Observer {
    world: World,
    callers: [Option<Caller>; 4],
    /// The fetch that was started last and has not ended, and when it may be given up.
    in_flight: Option<(u64, Instant)>,
    /// When the newest token expires by each clock.
    ends: Option<(u64, Instant, SystemTime)>,
    /// Fetches started since time last passed, by callers and by checks.
    at_once: [u32; 5],
    /// Before this no fetch starts.
    held_until: Option<Instant>,
    /// The delay of the last first 401.
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

    fn ask(&mut self, place: usize) {
        let Some(mut caller) = self.callers[place].take() else {
            return;
        };
        let now = self.world.now;
        match self.world.acquire(&mut caller) {
            Decision::Ready(token) => self.serves(&token, caller.newer_than),
            Decision::Failed(error) => {
                // An event asks for a place at most 4,000 s away.
                assert!(error.retry_after().unwrap_or_default() <= s(4000));
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

    fn serves(&self, token: &Token, newer_than: u64) {
        let now = self.world.now;
        let (generation, ends, ends_by_wall) = self.ends.expect("a token was published");
        assert_eq!(token.generation(), generation, "not the newest token");
        assert!(
            now.monotonic < ends && now.wall < ends_by_wall,
            "an expired token"
        );
        assert!(generation > newer_than);
    }

    fn brings(&mut self, token: String, life: Duration) {
        self.ended(Ok(AccessToken::bearer(token, life).unwrap()));
    }

    fn ended(&mut self, result: Result<AccessToken, Error>) {
        let Some((number, _)) = self.in_flight else {
            return;
        };
        let life = result.as_ref().map_or(s(0), AccessToken::expires_in);
        match self.world.end(number, result) {
            // It was given up.
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
                let after = error.retry_after().expect("says when to ask again");
                // A place in line may be hours away.
                assert!(after >= ms(100) && (error.is_not_attempted() || after <= s(3600)));
                self.in_flight = None;
                let until = self.world.now.monotonic + after;
                self.held_until = (!error.is_not_attempted()).then_some(until);
            }
        }
    }

    /// The fetch says when it stops.
    fn stops_in(&mut self, time: Duration) {
        if let Some((number, overdue)) = &mut self.in_flight {
            let until = self.world.now.monotonic + time;
            if self.world.machine.stops_at(*number, until) {
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
        // What a server says may start a fetch at once.
        self.at_once = [0; 5];
    }

    /// Picks an event by two numbers, which proptest draws, and shrinks, faster than a choice
    /// among strategies.
    fn happens(&mut self, (kind, number): (u8, u32)) {
        let place = number as usize % 4;
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
            6..14 => self.ask(place),
            14..18 => {
                if let Some(start) = world.check() {
                    assert_eq!(*start.urgency.borrow(), Urgency::Background);
                    self.started(&start, 4);
                }
            }
            18..24 => {
                let deadline = world.now.monotonic + within(40_000);
                let generation = world.generation();
                self.callers[place] = Some(match (number & 64 == 0, number & 128 == 0) {
                    (true, true) => Caller::replay(generation, deadline),
                    (true, false) => Caller::new(generation, deadline),
                    (false, _) => Caller::new(0, deadline),
                });
                self.at_once[place] = 0;
                self.ask(place);
            }
            24..28 => self.stops_in(within(40_000)),
            28..32 => {
                let name = format!("token-{}", world.machine.newest);
                self.brings(name, within(4_000_000) + ms(1));
            }
            32 => self.brings("same".to_owned(), within(4_000_000) + ms(1)),
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
        self.holds();
    }

    /// What holds after each event.
    fn holds(&self) {
        let (machine, now) = (&self.world.machine, self.world.now);
        let status = machine.status(0, now);
        let usable = machine.usable(0, now);
        assert_eq!(status.has_token(), usable.is_some());
        if let Some(token) = usable {
            self.serves(token, 0);
        }
        assert!(status.next_attempt_in.is_none_or(|wait| wait <= s(4000)));
        assert_eq!(status.last_error.is_some(), status.consecutive_failures > 0);
    }
}

/// Cases of 100 events each.
fn cases() -> u32 {
    let events = std::env::var("LIFECYCLE_EVENTS").ok();
    let events = events.and_then(|text| text.parse().ok());
    events.unwrap_or(50_000u32).div_ceil(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..Default::default() })]
    #[test]
    fn invariants_hold_whatever_happens(
        events in proptest::collection::vec((any::<u8>(), any::<u32>()), 100),
    ) {
        let mut observer = Observer::new();
        events.into_iter().for_each(|event| observer.happens(event));
    }
}
