//! The token path's state, and every decision taken under its lock.

use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::backoff::{Damping, Hold};
use super::fetch::{self, Flight, GRACE, Launch, Outcome};
use super::lifetime::{Plan, Stage};
use super::slot::{CachedToken, Slot};
use super::status::{Phase, TokenStatus};
use crate::allowance::{Allowance, Applicant, Standing, Urgency};
use crate::clock::{Clock, later};
use crate::error::{Error, ErrorKind};
use crate::provider::{Cause, DynProvider, FetchContext, Previous};
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
    /// For the ids of this cache's tokens.
    pub(super) this: Weak<Self>,
    pub(super) provider: Box<dyn DynProvider>,
    pub(super) settings: Settings,
    pub(super) warm: super::keep_warm::Timer,
    pub(super) applicant: Arc<Applicant>,
    state: Mutex<State>,
    /// No refresh in the background can start before this: nanoseconds after
    /// `born`. Spares requests the lock while the token ages.
    pub(super) quiet_until: AtomicU64,
    born: Instant,
    pub(super) waiting: AtomicUsize,
    pub(super) sent: Arc<Count>,
    pub(super) status: watch::Sender<TokenStatus>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) flight: Option<Flight>,
    pub(super) flights: u64,
    pub(super) hold: Option<Hold>,
    pub(super) damping: Damping,
    /// When the rejected token's replacement may be fetched.
    pub(super) heal_at: Option<Instant>,
    /// The allowance was spent, and when it frees.
    pub(super) spent: Option<Hold>,
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
    pub(super) old: Option<(Arc<CachedToken>, Instant)>,
    /// To be launched once the lock is released.
    pub(super) launch: Option<Box<Launch>>,
}

impl Core {
    pub(super) fn new(
        provider: Box<dyn DynProvider>,
        allowance: Option<Allowance>,
        settings: Settings,
    ) -> Arc<Self> {
        let allowance = match (allowance, provider.allowance()) {
            (Some(own), Some(providers)) => own.for_client_of(&providers),
            (own, providers) => own.or(providers).unwrap_or_default(),
        };
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
            this: Weak::clone(core),
            provider,
            settings,
            warm: super::keep_warm::Timer::default(),
            applicant: Arc::new(allowance.applicant()),
            state: Mutex::default(),
            quiet_until: AtomicU64::new(0),
            born,
            waiting: AtomicUsize::new(0),
            sent: Arc::default(),
            status: watch::Sender::new(cold),
        })
    }

    pub(super) fn now(&self) -> Instant {
        self.settings.clock.now()
    }

    pub(super) fn stage(&self, entry: &CachedToken) -> Stage {
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
            (Arc::clone(entry), later(now, patience))
        });
        let started = match &state.flight {
            // To wait takes a runtime too.
            Some(_) => Runtime::current().map(|_| None),
            None => match self.held_back(&state, now) {
                Some(error) => Err(error),
                None => {
                    let cause = match (fresh, stage) {
                        (true, _) => Cause::Manual,
                        (false, None) => Cause::Cold,
                        (false, Some(_)) => Cause::Expired,
                    };
                    let launch = self.prepare(&mut state, cause, Urgency::Waiting, now);
                    launch.map(|launch| Some(Box::new(launch)))
                }
            },
        };
        let launch = match (started, &old) {
            (Ok(launch), _) => launch,
            (Err(_), Some((entry, _))) => return Ok(Step::Serve(entry.token.clone())),
            (Err(error), None) => return Err(error),
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

    /// Why no flight may start now, for one who would wait for it.
    fn held_back(&self, state: &State, now: Instant) -> Option<Error> {
        let held = state.hold.as_ref().filter(|hold| hold.holds(now));
        // The allowance is waited for, if it frees in time.
        let patience = later(now, self.settings.acquire_timeout);
        let spent = state.spent.as_ref().filter(|spent| spent.until > patience);
        held.or(spent).map(|hold| hold.remembered(now))
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

    pub(super) fn due(self: &Arc<Self>, state: &mut State, now: Instant) -> Option<Launch> {
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
        // Its runtime stands still, and nobody need wait to find that out.
        let still = |flight: &mut Flight| later(flight.overdue, GRACE) < now;
        state.flight.take_if(still);
        let held = state.hold.as_ref().map(|hold| hold.until);
        let spent = state.spent.as_ref().map(|spent| spent.until);
        let due_at = entry.as_ref().map(|entry| self.due_at(state, entry, now));
        let busy = state.flight.as_ref().map(|_| later(now, LOOK));
        let not_before = [held, spent, due_at, busy];
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

    /// When this token's replacement should be fetched. What the life itself
    /// brings about is not damped.
    pub(super) fn due_at(&self, state: &State, entry: &CachedToken, now: Instant) -> Instant {
        let age = entry.age(now, self.settings.clock.wall());
        let refresh_at = later(now, entry.life.refresh_at.saturating_sub(age));
        match state.heal_at.filter(|_| entry.is_rejected()) {
            Some(heal_at) => heal_at.min(refresh_at),
            None => refresh_at,
        }
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
            applicant: Arc::clone(&self.applicant),
            standing: self.standing(state, now),
            clock: Arc::clone(&self.settings.clock),
            sent: Arc::clone(&self.sent),
            previous: self
                .slot
                .get()
                .map(|entry| Box::new(self.previous(&entry, now))),
        };
        let failures = state.hold.as_ref().map_or(0, |hold| hold.failures);
        let attempt = failures.saturating_add(1);
        let core = Arc::clone(self);
        let (flight, launch) = fetch::prepare(core, runtime, state.flights, urgency, attempt, cx);
        state.flight = Some(flight);
        self.tell(state, now);
        Ok(launch)
    }

    fn standing(&self, state: &State, now: Instant) -> Standing {
        let failing = |hold: &Hold| !hold.error().is_transient();
        Standing {
            failing: state.hold.as_ref().is_some_and(failing),
            expires_at: self.slot.get().map(|entry| {
                let age = entry.age(now, self.settings.clock.wall());
                later(now, entry.life.ends_at.saturating_sub(age))
            }),
        }
    }

    fn previous(&self, entry: &CachedToken, now: Instant) -> Previous {
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

    /// What comes after a rejected token.
    pub(super) fn successor(&self, rejected: u64) -> Successor {
        let state = self.lock();
        let newer = self.slot.get().is_some_and(|entry| {
            entry.token.generation() != rejected && self.stage(&entry) != Stage::Dead
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

    fn elapsed(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.born);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the state's
        // fields each stand for themselves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
