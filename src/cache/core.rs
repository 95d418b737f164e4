//! The token path's state, and every decision taken under its lock.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::flight::{self, Flight, Launch, Outcome};
use super::hold::{Damping, Hold};
use super::registry::{self, Ticket};
use super::schedule::{Life, Plan, Stage};
use super::slot::{Entry, Slot};
use super::status::{Phase, TokenStatus};
use crate::clock::{Age, Clock, later};
use crate::error::{Error, ErrorKind};
use crate::provider::{Allowance, Cause, DynProvider, FetchContext, Previous, Urgency};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Runtime};
use crate::token::AccessToken;

/// What a cache is set up with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) plan: Plan,
    pub(crate) fetch_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) keep_warm: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What all handles of one cache share.
pub(super) struct Core {
    pub(super) slot: Slot,
    /// This cache's number in the registry.
    pub(super) number: NonZeroU32,
    pub(super) provider: Box<dyn DynProvider>,
    pub(super) settings: Settings,
    pub(super) warm: super::warm::Timer,
    allowance: Allowance,
    state: Mutex<State>,
    /// No refresh in the background can start before this: nanoseconds after
    /// `born`. Spares requests the lock while the token ages.
    quiet_until: AtomicU64,
    born: Instant,
    pub(super) waiting: AtomicUsize,
    sent: Arc<Count>,
    status: watch::Sender<TokenStatus>,
}

#[derive(Default)]
struct State {
    generation: u64,
    flight: Option<Flight>,
    flights: u64,
    hold: Option<Hold>,
    damping: Damping,
    /// When the rejected token's replacement may be fetched.
    heal_at: Option<Instant>,
    /// The allowance was spent: no refresh in the background before this.
    background_at: Option<Instant>,
}

/// What a caller who wants a token does next.
pub(super) enum Step {
    Serve(AccessToken),
    Wait(Wait),
}

/// What comes after a rejected token.
pub(super) enum Successor {
    /// A newer one is in the slot.
    Here,
    /// A flight that may bring it.
    Coming(Wait),
    /// Nothing yet: a hold, or damping.
    Held,
}

/// The flight to wait for.
pub(super) struct Wait {
    pub(super) id: u64,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    /// The flight should have landed by then.
    pub(super) overdue: Instant,
    /// The old token, and until when to wait before going with it.
    pub(super) old: Option<(AccessToken, Instant)>,
    /// To be launched once the lock is released.
    pub(super) launch: Option<Box<Launch>>,
}

impl Core {
    pub(super) fn new(
        provider: Box<dyn DynProvider>,
        allowance: Option<Allowance>,
        settings: Settings,
    ) -> Arc<Self> {
        let allowance = allowance
            .or_else(|| provider.allowance())
            .unwrap_or_else(Allowance::officernd);
        let born = settings.clock.now();
        let cold = TokenStatus {
            phase: Phase::Cold,
            generation: 0,
            expires_in: None,
            scope: None,
            rejected: false,
            last_error: None,
            consecutive_failures: 0,
            next_attempt_in: None,
            token_requests: 0,
        };
        Arc::new_cyclic(|core| Self {
            slot: Slot::default(),
            number: registry::enter(core),
            provider,
            settings,
            warm: super::warm::Timer::default(),
            allowance,
            state: Mutex::default(),
            quiet_until: AtomicU64::new(0),
            born,
            waiting: AtomicUsize::new(0),
            sent: Arc::default(),
            status: watch::Sender::new(cold),
        })
    }

    pub(super) fn ticket(&self, entry: &Entry) -> Ticket {
        Ticket::new(self.number, entry.token.generation())
    }

    pub(super) fn now(&self) -> Instant {
        self.settings.clock.now()
    }

    pub(super) fn stage(&self, entry: &Entry) -> Stage {
        entry.stage(self.now(), self.settings.clock.wall())
    }

    /// What a caller who wants a token gets: one that serves, a flight to wait
    /// for, or the reason why there is none. `fresh` asks for a new token.
    pub(super) fn step(self: &Arc<Self>, fresh: bool) -> Result<Step, Error> {
        let now = self.now();
        let mut state = self.lock();
        // Looked at under the lock: a flight may have landed since.
        let entry = self.slot.get();
        let stage = entry.as_ref().map(|entry| self.stage(entry));
        let living = entry.as_ref().filter(|_| stage != Some(Stage::Dead));
        if let (false, Some(entry), Some(Stage::Fresh | Stage::Ahead)) = (fresh, &entry, stage) {
            return Ok(Step::Serve(entry.token.clone()));
        }
        let old = living.filter(|_| !fresh).map(|entry| {
            let age = entry.age(now, self.settings.clock.wall());
            let patience = entry.life.last_wait.saturating_sub(age);
            (entry.token.clone(), later(now, patience))
        });
        if state.flight.is_none() {
            if let Some(hold) = state.hold.as_ref().filter(|hold| hold.holds(now)) {
                return match old {
                    Some((token, _)) => Ok(Step::Serve(token)),
                    None => Err(hold.remembered(now)),
                };
            }
        }
        let launch = match &state.flight {
            Some(_) => None,
            None => {
                let cause = match (fresh, stage) {
                    (true, _) => Cause::Manual,
                    (false, None) => Cause::Cold,
                    (false, Some(_)) => Cause::Expired,
                };
                match self.prepare(&mut state, cause, Urgency::Waiting, now) {
                    Ok(launch) => Some(Box::new(launch)),
                    Err(error) => {
                        return match old {
                            Some((token, _)) => Ok(Step::Serve(token)),
                            None => Err(error),
                        };
                    }
                }
            }
        };
        let Some(flight) = &state.flight else {
            return Err(Error::new(ErrorKind::Runtime, "no fetch could be started"));
        };
        flight.promote();
        Ok(Step::Wait(Wait {
            id: flight.id,
            outcome: flight.outcome.clone(),
            overdue: flight.overdue,
            old,
            launch,
        }))
    }

    /// Starts a refresh in the background if one is due and may start. The
    /// caller has a token that serves and does not wait.
    pub(super) fn refresh_behind(self: &Arc<Self>) {
        let now = self.now();
        if self.elapsed(now) < self.quiet_until.load(Ordering::Relaxed) {
            return;
        }
        let launch = self.due(&mut self.lock(), now);
        if let Some(launch) = launch {
            launch.spawn();
        }
    }

    fn due(self: &Arc<Self>, state: &mut State, now: Instant) -> Option<Launch> {
        /// How often requests look whether a flight is still there.
        const LOOK: Duration = Duration::from_millis(100);

        let entry = self.slot.get();
        let cause = match &entry {
            None => Cause::Cold,
            Some(entry) => match self.stage(entry) {
                Stage::Fresh if entry.is_rejected() => Cause::Rejected,
                Stage::Fresh => return None,
                Stage::Ahead | Stage::Margin => Cause::Ahead,
                Stage::Dead => Cause::Expired,
            },
        };
        let held = state.hold.as_ref().map(|hold| hold.until);
        // What the life itself brings about is not damped.
        let damped = state.heal_at.filter(|_| cause == Cause::Rejected);
        let busy = state.flight.as_ref().map(|_| later(now, LOOK));
        let not_before = [held, damped, busy, state.background_at];
        if let Some(until) = not_before
            .into_iter()
            .flatten()
            .max()
            .filter(|&at| at > now)
        {
            self.quiet_until
                .store(self.elapsed(until), Ordering::Relaxed);
            return None;
        }
        // Outside a runtime the next call inside one starts it.
        self.prepare(state, cause, Urgency::Background, now).ok()
    }

    fn prepare(
        self: &Arc<Self>,
        state: &mut State,
        cause: Cause,
        urgency: Urgency,
        now: Instant,
    ) -> Result<Launch, Error> {
        let runtime = Runtime::current()?;
        state.flights += 1;
        let (urgency, urgencies) = watch::channel(urgency);
        let deadline = later(now, self.settings.acquire_timeout);
        let cx = FetchContext {
            cause,
            urgency: urgencies,
            deadline,
            fetch_timeout: self.settings.fetch_timeout,
            allowance: self.allowance.clone(),
            clock: Arc::clone(&self.settings.clock),
            sent: Arc::clone(&self.sent),
            previous: self
                .slot
                .get()
                .map(|entry| Box::new(self.previous(&entry, now))),
            gate: None,
        };
        let (flight, launch) =
            flight::prepare(Arc::clone(self), runtime, state.flights, urgency, cx);
        state.flight = Some(flight);
        self.tell(state, now);
        Ok(launch)
    }

    fn previous(&self, entry: &Entry, now: Instant) -> Previous {
        let wall = self.settings.clock.wall();
        let age = entry.age(now, wall);
        Previous {
            token: entry.token.clone(),
            landed_by: wall
                .checked_sub(age.saturating_sub(self.settings.acquire_timeout))
                .unwrap_or(wall),
            ends_at: later(now, entry.life.ends_at.saturating_sub(age)),
        }
    }

    /// The flight goes into its next stage, which ends by `until`.
    pub(super) fn extend(&self, id: u64, until: Instant) {
        if let Some(flight) = self.lock().flight.as_mut().filter(|flight| flight.id == id) {
            flight.overdue = until;
        }
    }

    /// Gives up on a flight that was due before `now`: its runtime stands
    /// still. One that has got further meanwhile is left alone.
    pub(super) fn abandon(&self, id: u64, now: Instant) {
        let overdue = |flight: &mut Flight| flight.id == id && flight.overdue < now;
        self.lock().flight.take_if(overdue);
    }

    /// Takes a flight's result. The slot has the token before anybody is
    /// woken. `None`: the flight was given up, its result is nobody's.
    pub(super) fn land(
        &self,
        id: u64,
        result: Result<(AccessToken, Age), Error>,
    ) -> Option<Outcome> {
        let now = self.now();
        let mut state = self.lock();
        state.flight.take_if(|flight| flight.id == id)?;
        self.quiet_until.store(0, Ordering::Relaxed);
        let outcome = match result {
            Ok((token, age)) => self.publish(&mut state, token, age, now),
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            if error.is_unsent() {
                let after = error.retry_after().unwrap_or_default();
                state.background_at = Some(later(now, after));
            } else {
                let earlier = state.hold.as_ref().map_or(0, |hold| hold.failures);
                let hold = Hold::after(error.clone(), earlier, now, fastrand::f32());
                state.hold = Some(hold);
            }
        }
        self.tell(&state, now);
        Some(outcome)
    }

    fn publish(&self, state: &mut State, token: AccessToken, age: Age, now: Instant) -> Outcome {
        let wall = self.settings.clock.wall();
        let granted = token.expires_in();
        let last = self.slot.get();
        let same = |last: &&Arc<Entry>| last.token.header_value() == token.header_value();
        let life = match last.as_ref().filter(same) {
            Some(last) if !last.is_rejected() => Life::reissued(granted),
            _ => Life::new(&self.settings.plan, granted, fastrand::f32()),
        };
        if life.stage(age.at(now, wall)) == Stage::Dead {
            return Err(Error::new(
                ErrorKind::Malformed,
                "the new token had outlived its expires_in before it arrived",
            ));
        }
        if let Some(last) = last.filter(|last| !last.is_rejected()) {
            if last.stage(now, wall) != Stage::Fresh {
                state.damping.forget();
            }
        }
        state.generation += 1;
        state.hold = None;
        state.heal_at = None;
        state.background_at = None;
        let token = token.with_generation(state.generation);
        self.slot.publish(Entry::new(token.clone(), life, age));
        Ok(token)
    }

    /// The flight is gone without a result: its runtime ended, or it panicked.
    pub(super) fn lost(&self, id: u64) {
        let now = self.now();
        let mut state = self.lock();
        if state.flight.take_if(|flight| flight.id == id).is_some() {
            self.quiet_until.store(0, Ordering::Relaxed);
            self.tell(&state, now);
        }
    }

    /// A server rejected this token. Whether that is news.
    pub(super) fn reject(self: &Arc<Self>, rejected: Ticket) -> bool {
        let now = self.now();
        let launch = {
            let mut state = self.lock();
            let Some(entry) = self.slot.get() else {
                return false;
            };
            if !rejected.is_of(entry.token.generation()) || !entry.reject() {
                return false;
            }
            if self.stage(&entry) != Stage::Fresh {
                state.damping.forget();
            }
            state.heal_at = Some(later(now, state.damping.strike()));
            self.quiet_until.store(0, Ordering::Relaxed);
            let launch = self.due(&mut state, now);
            self.tell(&state, now);
            launch
        };
        if let Some(launch) = launch {
            launch.spawn();
        }
        true
    }

    /// What comes after a rejected token.
    pub(super) fn successor(&self, rejected: Ticket) -> Successor {
        let state = self.lock();
        let newer = self.slot.get().is_some_and(|entry| {
            !rejected.is_of(entry.token.generation()) && self.stage(&entry) != Stage::Dead
        });
        match &state.flight {
            _ if newer => Successor::Here,
            None => Successor::Held,
            Some(flight) => {
                flight.promote();
                Successor::Coming(Wait {
                    id: flight.id,
                    outcome: flight.outcome.clone(),
                    overdue: flight.overdue,
                    old: None,
                    launch: None,
                })
            }
        }
    }

    /// When a timer should look again: the time of the next refresh, or of the
    /// end of what holds it back.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let now = self.now();
        let state = self.lock();
        if state.flight.is_some() {
            // Its landing is told.
            return None;
        }
        let hold = state.hold.as_ref().map(|hold| hold.until);
        let due = self.slot.get().map(|entry| {
            let age = entry.age(now, self.settings.clock.wall());
            let refresh_at = later(now, entry.life.refresh_at.saturating_sub(age));
            match state.heal_at.filter(|_| entry.is_rejected()) {
                Some(heal_at) => heal_at.min(refresh_at),
                None => refresh_at,
            }
        });
        Some(
            [hold, due, state.background_at]
                .into_iter()
                .flatten()
                .max()
                .unwrap_or(now),
        )
    }

    pub(super) fn status(&self) -> TokenStatus {
        let now = self.now();
        self.describe(&self.lock(), now)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.status.subscribe()
    }

    fn tell(&self, state: &State, now: Instant) {
        self.status.send_replace(self.describe(state, now));
    }

    fn describe(&self, state: &State, now: Instant) -> TokenStatus {
        let entry = self.slot.get();
        let stage = entry.as_ref().map(|entry| self.stage(entry));
        let rejected = entry.as_ref().is_some_and(|entry| entry.is_rejected());
        let hold = state.hold.as_ref();
        let phase = match stage {
            None | Some(Stage::Dead) if hold.is_some() => Phase::Failing,
            None => Phase::Cold,
            Some(Stage::Dead) => Phase::Expired,
            Some(_) if state.flight.is_some() => Phase::Refreshing,
            Some(Stage::Fresh) if !rejected => Phase::Fresh,
            Some(_) => Phase::Aging,
        };
        let held = hold.map(|hold| hold.until);
        let next_attempt = [held, state.heal_at, state.background_at];
        TokenStatus {
            phase,
            generation: state.generation,
            expires_in: entry.as_ref().map(|entry| {
                let age = entry.age(now, self.settings.clock.wall());
                entry.life.ends_at.saturating_sub(age)
            }),
            scope: entry.and_then(|entry| entry.token.scope().map(str::to_owned)),
            rejected,
            last_error: hold.map(|hold| hold.error().kind()),
            consecutive_failures: hold.map_or(0, |hold| hold.failures),
            next_attempt_in: next_attempt
                .into_iter()
                .flatten()
                .max()
                .filter(|&at| at > now)
                .map(|at| at.saturating_duration_since(now)),
            token_requests: self.sent.load(Ordering::Relaxed),
        }
    }

    fn elapsed(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.born);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the state's
        // fields each stand for themselves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        registry::leave(self.number);
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("settings", &self.settings)
            .field("allowance", &self.allowance)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
