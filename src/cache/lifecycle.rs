//! Every decision about one token, as a pure state machine.
//!
//! It has no lock, task, clock or randomness: time, chance and the results of fetches are arguments,
//! and decisions are return values. [`TokenCache`](super::TokenCache) acts on them. No result is sent
//! to a waiting caller: after each change it asks for a new decision.
//!
//! Invariants: at most one fetch is in flight. No token is used after its end. A wait ends by the
//! caller's deadline. No fetch starts right after another has failed, except once for each caller after a
//! lost one, and for a request after a refresh that got no permit.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::state::State;
use super::status::{Phase, TokenStatus};
use super::token::{CacheSettings, Token};
use crate::backoff::backoff;
use crate::clock::{Now, doubled, later};
use crate::error::{Error, ErrorKind};
use crate::provider::{Cause, GRACE};
use crate::rate_limit::{Class, Urgency};
use crate::token::AccessToken;

/// How soon the task of a fetch must begin. After that, the fetch is given up.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// The shortest time from a failed fetch to the next.
const MIN_HOLD: Duration = Duration::from_millis(100);

/// How long a token must be in use without a 401 to reset the schedule. Just below 5 min: so tokens
/// that become invalid after 5 min are replaced at once, and a path that is forbidden every 5 min
/// costs fewer than 300 token requests a day.
const CURED: Duration = Duration::from_secs(290);
/// Minutes until a rejected token is replaced, by the number of tokens in a row that were rejected.
const SCHEDULE: [u64; 6] = [0, 1, 2, 4, 8, 10];

/// The current token, the fetch of the next, and the 401s.
#[derive(Debug)]
pub(super) struct Lifecycle {
    settings: CacheSettings,
    home: Weak<State>,
    token: Option<Arc<Token>>,
    fetch: Fetch,
    /// The number of the newest fetch.
    newest: u64,
    /// The last failure since the last success.
    failure: Option<Failure>,
    /// The last fetch that ended without a result, and the number of those in a row.
    lost: (u64, u32),
    rejection: Rejection,
    /// Counts the changes that subscribers of the status see.
    pub(super) events: u64,
}

/// The fetch of the next token.
#[derive(Debug)]
enum Fetch {
    Idle,
    InFlight {
        urgency: watch::Sender<Urgency>,
        /// When the fetch is given up.
        overdue: Instant,
    },
    /// The last fetch returned no token. The next starts later.
    Held {
        error: Error,
        until: Instant,
        whom: Whom,
    },
}

/// The fetches that a hold keeps from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Everyone; callers get the error.
    Everyone,
    /// Everyone, because no request could be sent, as when the rate limit is used up. Callers wait if
    /// the hold ends before their deadline.
    Queue,
    /// Background fetches and replays. Other callers start a fetch at once.
    Background,
}

#[derive(Debug)]
struct Failure {
    number: u64,
    error: Error,
    in_a_row: u32,
}

/// The 401s to the current token and its predecessors.
#[derive(Debug)]
struct Rejection {
    /// When the current token is replaced, if it was rejected.
    replace_at: Option<Instant>,
    /// When the current token arrived.
    since: Instant,
    /// The number of tokens in a row that were rejected.
    in_a_row: usize,
    /// The newest fetch at the last 401 that counted. Its token was requested before that 401, so it
    /// is not the replacement, and a 401 to it adds no step to the schedule.
    newest: u64,
}

/// A caller that wants a token, and its state while it waits.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) deadline: Instant,
    /// The caller needs a token of a later generation; 0 accepts any.
    pub(super) newer_than: u64,
    /// The caller does not raise the priority of a fetch.
    quiet: bool,
    /// The fetch that it waits for; 0 is none.
    joined: u64,
    /// The number of fetches that it joined and that ended with neither an error nor a usable token.
    lost: u32,
}

/// The next action of a caller.
#[derive(Debug)]
pub(super) enum Decision {
    Ready(Arc<Token>),
    /// Start the fetch, if there is one. Ask again after the next change, or at `until`.
    Wait {
        until: Instant,
        start: Option<Start>,
    },
    Failed(Error),
}

/// A fetch to start.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) number: u64,
    pub(super) cause: Cause,
    /// Counted from 1 since the last success.
    pub(super) attempt: u32,
    pub(super) urgency: watch::Receiver<Urgency>,
    /// The priority until the given time. Without it the urgency decides.
    pub(super) class: Option<(Class, Instant)>,
    pub(super) deadline: Instant,
    /// The token to replace.
    pub(super) previous: Option<Arc<Token>>,
}

impl Caller {
    /// Creates a caller that waits for a token of a later generation until `deadline`.
    pub(super) fn new(newer_than: u64, deadline: Instant) -> Self {
        Self {
            deadline,
            newer_than,
            quiet: false,
            joined: 0,
            lost: 0,
        }
    }

    /// Creates the caller of a replay, which does not raise the priority of a fetch.
    pub(super) fn replay(generation: u64, deadline: Instant) -> Self {
        Self {
            quiet: true,
            ..Self::new(generation, deadline)
        }
    }
}

impl Lifecycle {
    pub(super) fn new(settings: CacheSettings, home: Weak<State>, now: Now) -> Self {
        Self {
            settings,
            home,
            token: None,
            fetch: Fetch::Idle,
            newest: 0,
            failure: None,
            lost: (0, 0),
            rejection: Rejection {
                replace_at: None,
                since: now.monotonic,
                in_a_row: 0,
                newest: 0,
            },
            events: 0,
        }
    }

    /// Decides for a caller that wants a token.
    pub(super) fn acquire(&mut self, caller: &mut Caller, now: Now) -> Decision {
        if let Some(token) = self.usable(caller.newer_than, now) {
            return Decision::Ready(Arc::clone(token));
        }
        self.give_up_overdue(now);
        if let Some(error) = self.error_for(caller, now) {
            return Decision::Failed(error);
        }
        if caller.deadline <= now.monotonic {
            return Decision::Failed(self.too_late());
        }
        let mut start = None;
        match &self.fetch {
            Fetch::InFlight { urgency, .. } => {
                let hurry = |old: &mut _| mem::replace(old, Urgency::Waiting) != Urgency::Waiting;
                let _ = !caller.quiet && urgency.send_if_modified(hurry);
            }
            Fetch::Held { until, whom, .. }
                if now.monotonic < *until && (*whom != Whom::Background || caller.quiet) =>
            {
                if *whom != Whom::Everyone && *until <= caller.deadline {
                    let until = *until;
                    return Decision::Wait { until, start };
                }
                return Decision::Failed(self.held(now));
            }
            // A replay does not start a replacement that is due later.
            Fetch::Held { .. } | Fetch::Idle
                if caller.quiet && now.monotonic < self.next_check_at(now) =>
            {
                return Decision::Failed(self.too_late());
            }
            Fetch::Held { .. } | Fetch::Idle => {
                let urgency = match caller.quiet {
                    true => Urgency::Background,
                    false => Urgency::Waiting,
                };
                start = Some(self.start(urgency, caller.newer_than != 0, now));
            }
        }
        caller.joined = self.newest;
        let until = caller.deadline.min(self.next_check_at(now));
        Decision::Wait { until, start }
    }

    /// Returns the token if a caller may use it.
    pub(super) fn usable(&self, newer_than: u64, now: Now) -> Option<&Arc<Token>> {
        let token = self.token.as_ref()?;
        (token.generation() > newer_than && token.is_live(now)).then_some(token)
    }

    /// Returns the error for a caller whose fetch has ended without a usable token.
    fn error_for(&self, caller: &mut Caller, now: Now) -> Option<Error> {
        if caller.joined == 0 {
            return None;
        }
        let failed = self.failure.as_ref();
        if let Some(failure) = failed.filter(|failure| failure.number == caller.joined) {
            // The caller gets the result of its fetch even if the hold has ended meanwhile.
            let left = self.held_until(now).unwrap_or(now.monotonic);
            let left = left.saturating_duration_since(now.monotonic);
            return Some(failure.error.clone().with_retry_after(left));
        }
        let expired = self
            .token
            .as_ref()
            .is_some_and(|token| token.fetch == caller.joined);
        if !expired && self.lost.0 < caller.joined {
            return None;
        }
        caller.joined = 0;
        caller.lost += 1;
        // After the first lost fetch, the caller starts another one.
        (caller.lost > 1).then(|| match expired {
            true => Error::new(
                ErrorKind::Timeout,
                "each new token had expired before it could be used: the machine was suspended, \
                 or the tokens expire too soon",
            ),
            false => lost_error(),
        })
    }

    /// Returns the fetch that is due in the background. Called by requests and by the timer.
    pub(super) fn check(&mut self, now: Now) -> Option<Start> {
        self.give_up_overdue(now);
        let due = !self.is_in_flight() && self.next_check_at(now) <= now.monotonic;
        due.then(|| self.start(Urgency::Background, false, now))
    }

    /// Returns the time before which no background fetch is due.
    pub(super) fn next_check_at(&self, now: Now) -> Instant {
        if let Fetch::InFlight { overdue, .. } = self.fetch {
            return overdue;
        }
        let due = self.token.as_ref().map(|token| token.due_at(now));
        let due = due.into_iter().chain(self.rejection.replace_at).min();
        due.max(self.held_until(now)).unwrap_or(now.monotonic)
    }

    fn is_in_flight(&self) -> bool {
        matches!(self.fetch, Fetch::InFlight { .. })
    }

    /// Gives up a fetch whose runtime has ended or is blocked.
    fn give_up_overdue(&mut self, now: Now) {
        if matches!(self.fetch, Fetch::InFlight { overdue, .. } if overdue <= now.monotonic) {
            self.fetch = Fetch::Idle;
            self.events += 1;
        }
    }

    fn start(&mut self, urgency: Urgency, manual: bool, now: Now) -> Start {
        let token = self.token.as_ref();
        let cause = match token {
            Some(_) if self.rejection.replace_at.is_some() => Cause::Rejected,
            _ if manual => Cause::Manual,
            None => Cause::Cold,
            Some(token) if token.is_live(now) => Cause::Ahead,
            Some(_) => Cause::Expired,
        };
        let is_failing = |failure: &Failure| !failure.error.is_transient();
        // A waiting replay does not change this.
        let early = token.filter(|token| cause == Cause::Rejected && !token.is_due(now));
        let class = match self.failure.as_ref().is_some_and(is_failing) {
            true => Some((Class::Failing, later(now.monotonic, Duration::MAX))),
            // The low priority ends with the token: from then on, requests wait for the replacement.
            false => early.map(|token| (Class::Rejected, token.ends_at(now))),
        };
        let (sender, receiver) = watch::channel(urgency);
        let deadline = later(now.monotonic, self.settings.acquire_timeout);
        self.newest += 1;
        self.events += 1;
        self.fetch = Fetch::InFlight {
            urgency: sender,
            overdue: later(now.monotonic, BEGINS_WITHIN),
        };
        Start {
            number: self.newest,
            cause,
            attempt: self.failures().saturating_add(1),
            urgency: receiver,
            class,
            deadline,
            previous: self.token.clone(),
        }
    }

    /// Records when the fetch stops at the latest. Returns `false` if it was given up: then it must
    /// not send anything.
    pub(super) fn move_stop(&mut self, number: u64, until: Instant) -> bool {
        match &mut self.fetch {
            Fetch::InFlight { overdue, .. } if self.newest == number => {
                *overdue = later(until, GRACE);
                true
            }
            _ => false,
        }
    }

    /// Records the result of the fetch. Returns the new current token, or the error with the time
    /// until the next fetch. Returns `None` if the fetch was given up; its result is then dropped.
    pub(super) fn ended(
        &mut self,
        number: u64,
        result: Result<(AccessToken, Now), Error>,
        (now, chance): (Now, f32),
    ) -> Option<Result<Arc<Token>, Error>> {
        let urgency = match &self.fetch {
            Fetch::InFlight { urgency, .. } if self.newest == number => *urgency.borrow(),
            _ => return None,
        };
        self.events += 1;
        self.lost.1 = 0;
        let old = self.token.as_deref();
        let token = result.and_then(|(access, born)| {
            let access = access.with_generation(old.map_or(0, Token::generation) + 1);
            let old = old.filter(|_| self.rejection.replace_at.is_none());
            let (settings, home) = (&self.settings, Weak::clone(&self.home));
            Token::new((access, born), number, old, settings, home, (now, chance))
        });
        Some(match token {
            Ok(token) => Ok(self.publish(token, now)),
            Err(error) => {
                let (until, whom) = self.hold(number, &error, urgency, (now, chance));
                self.fetch = Fetch::Held { error, until, whom };
                Err(self.held(now))
            }
        })
    }

    fn publish(&mut self, token: Token, now: Now) -> Arc<Token> {
        let token = Arc::new(token);
        let old = self.token.replace(Arc::clone(&token));
        if old.is_some_and(|old| self.rejection.is_cure(&old, now)) {
            self.rejection.in_a_row = 0;
        }
        self.rejection.replace_at = None;
        self.rejection.since = now.monotonic;
        self.fetch = Fetch::Idle;
        self.failure = None;
        token
    }

    /// Records the error. Returns the end of the hold, and who must wait for it.
    fn hold(
        &mut self,
        number: u64,
        error: &Error,
        urgency: Urgency,
        (now, chance): (Now, f32),
    ) -> (Instant, Whom) {
        if error.is_not_attempted() {
            let wait = error.retry_after().unwrap_or(MIN_HOLD).max(MIN_HOLD);
            let whom = match urgency {
                // Another process's failure, which callers get like their own.
                _ if error.max_backoff().is_some() => Whom::Everyone,
                _ if error.kind() == ErrorKind::InvalidClient => Whom::Everyone,
                // A waiting request gets a permit before a refresh does.
                Urgency::Background => Whom::Background,
                Urgency::Waiting => Whom::Queue,
            };
            return (later(now.monotonic, wait), whom);
        }
        let in_a_row = self.failures().saturating_add(1);
        self.failure = Some(Failure {
            number,
            error: error.clone(),
            in_a_row,
        });
        let mut wait = backoff(error, in_a_row, chance);
        if let Some(most) = error.max_backoff() {
            wait = wait.min(most);
        }
        let asked = error.retry_after().unwrap_or_default();
        let token = self.usable(0, now);
        if let Some(token) = token.filter(|_| error.is_transient()) {
            // At the end of the token, requests start to wait for the next.
            let left = token.ends_at(now).saturating_duration_since(now.monotonic);
            wait = wait.min(left.max(asked));
        }
        (later(now.monotonic, wait.max(MIN_HOLD)), Whom::Everyone)
    }

    /// Records that the fetch has ended without a result. Returns `false` if it was given up.
    pub(super) fn lost(&mut self, number: u64, now: Now) -> bool {
        let was_in_flight = self.newest == number && self.is_in_flight();
        if was_in_flight {
            self.events += 1;
            self.lost = (number, self.lost.1.saturating_add(1));
            self.fetch = match self.lost.1 {
                1 => Fetch::Idle,
                more => Fetch::Held {
                    error: lost_error(),
                    until: later(
                        now.monotonic,
                        doubled(MIN_HOLD, more - 2, Duration::from_secs(1)),
                    ),
                    whom: Whom::Background,
                },
            };
        }
        was_in_flight
    }

    /// Records a 401 to this token. Returns the age of the token and the time until its replacement
    /// if this is the first 401 to the current token.
    pub(super) fn rejected(&mut self, generation: u64, now: Now) -> Option<(Duration, Duration)> {
        let newest = self.newest;
        let token = self.token.as_ref()?;
        let rejection = &mut self.rejection;
        if token.generation() != generation || rejection.replace_at.is_some() {
            return None;
        }
        if rejection.is_cure(token, now) {
            rejection.in_a_row = 0;
        }
        if token.fetch > rejection.newest || rejection.in_a_row == 0 {
            rejection.in_a_row += 1;
            rejection.newest = newest;
        }
        let step = rejection.in_a_row.min(SCHEDULE.len());
        let minutes = SCHEDULE.get(step - 1).copied().unwrap_or_default();
        let delay = Duration::from_secs(60 * minutes);
        rejection.replace_at = Some(later(now.monotonic, delay));
        self.events += 1;
        Some((token.age(now), delay))
    }

    /// Returns `true` if there is a newer token than this generation, or a fetch in flight.
    pub(super) fn is_replacing(&self, generation: u64, now: Now) -> bool {
        self.usable(generation, now).is_some() || self.is_in_flight()
    }

    pub(super) fn status(&self, token_requests: u64, now: Now) -> TokenStatus {
        let token = self.token.as_ref();
        let failure = self.failure.as_ref();
        let phase = match token {
            Some(token) if token.is_live(now) => match self.rejection.replace_at {
                _ if self.is_in_flight() => Phase::Refreshing,
                None if !token.is_due(now) => Phase::Fresh,
                _ => Phase::RefreshDue,
            },
            _ if failure.is_some() => Phase::Failing,
            Some(_) => Phase::Expired,
            None => Phase::Cold,
        };
        let next = self.rejection.replace_at.map(|_| self.next_check_at(now));
        let next = next
            .filter(|_| !self.is_in_flight())
            .max(self.held_until(now));
        let next = next.map(|at| at.saturating_duration_since(now.monotonic));
        TokenStatus {
            phase,
            generation: token.map_or(0, |token| token.generation()),
            expires_in: token.map(|token| token.left(now)),
            scope: token.and_then(|token| token.access().scope().map(str::to_owned)),
            rejected: self.rejection.replace_at.is_some(),
            last_error: failure.map(|failure| failure.error.kind()),
            consecutive_failures: self.failures(),
            next_attempt_in: next.filter(|wait| !wait.is_zero()),
            token_requests,
        }
    }

    /// Returns the number of failures since the last success.
    fn failures(&self) -> u32 {
        self.failure.as_ref().map_or(0, |failure| failure.in_a_row)
    }

    /// Returns the end of the hold, if it has not ended.
    fn held_until(&self, now: Now) -> Option<Instant> {
        match self.fetch {
            Fetch::Held { until, .. } if now.monotonic < until => Some(until),
            _ => None,
        }
    }

    /// Returns the error of the hold. Its `retry_after` is the time until the hold ends.
    fn held(&self, now: Now) -> Error {
        match &self.fetch {
            Fetch::Held { error, until, .. } => {
                let left = until.saturating_duration_since(now.monotonic);
                error.clone().with_retry_after(left)
            }
            _ => self.too_late(),
        }
    }

    /// Returns the error of a caller whose deadline has passed.
    fn too_late(&self) -> Error {
        let error = Error::new(
            ErrorKind::Timeout,
            "no token arrived within the acquire timeout",
        );
        match &self.failure {
            Some(failure) => error.with_source(failure.error.clone()),
            None => error,
        }
    }
}

impl Rejection {
    /// Returns `true` if the current token was in use long enough without a 401: then the
    /// replacement of its predecessor has helped.
    fn is_cure(&self, token: &Token, now: Now) -> bool {
        let used = now.monotonic.saturating_duration_since(self.since);
        self.replace_at.is_none() && (used >= CURED || token.is_due(now))
    }
}

fn lost_error() -> Error {
    Error::new(
        ErrorKind::Runtime,
        "the token fetch ended repeatedly without a result: the provider panics, or its runtime \
         shuts down",
    )
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
