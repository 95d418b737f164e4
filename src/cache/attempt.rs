//! At most one fetch at a time. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, BackoffBounds};
use super::lifetime::IssuedToken;
use crate::clock::{Now, later};
use crate::error::{Error, ErrorKind};
use crate::provider::Cause;
use crate::rate_limit::Urgency;

/// A fetch whose runtime runs ends in time. One that is later than this has
/// lost its runtime, or the runtime is blocked.
const GRACE: Duration = Duration::from_secs(1);

/// The fetch of the next token: under way, or held back.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) state: Attempt,
    /// The id of the newest fetch.
    pub(super) newest: u64,
    /// The last failure since the last success.
    pub(super) last_failure: Option<Failure>,
    /// The last fetch that ended without a result, and how many did in a row.
    pub(super) lost: (u64, u32),
}

#[derive(Debug)]
pub(super) enum Attempt {
    Idle,
    InFlight(InFlight),
    BackingOff(Backoff),
}

/// The fetch that runs.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) urgency: Urgency,
    pub(super) overdue_at: Instant,
    /// It was overdue once, and has until `overdue_at` to show that it runs.
    last_chance: bool,
}

/// The last failure since the last success.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fetch: u64,
    pub(super) error: Error,
    pub(super) in_a_row: u32,
}

/// A fetch to start.
#[derive(Debug)]
pub(super) struct StartFetch {
    pub(super) id: u64,
    pub(super) cause: Cause,
    /// Counted from 1 since the last success.
    pub(super) attempt: u32,
    /// The last fetch failed for a reason that lasts.
    pub(super) failing: bool,
    /// The token to be replaced.
    pub(super) previous: Option<Arc<IssuedToken>>,
    /// When that expires.
    pub(super) expires_at: Option<Instant>,
}

/// How a fetch ended.
#[derive(Debug)]
pub(super) enum Completed {
    Published {
        issued: Arc<IssuedToken>,
        /// The age of the token that it replaces.
        replaced: Option<Duration>,
    },
    /// `retry_after` says when the next fetch may start.
    Failed(Error),
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            state: Attempt::Idle,
            newest: 0,
            last_failure: None,
            lost: (0, 0),
        }
    }

    pub(super) fn in_flight(&mut self, id: u64) -> Option<&mut InFlight> {
        match &mut self.state {
            Attempt::InFlight(fetch) if fetch.id == id => Some(fetch),
            _ => None,
        }
    }

    /// A fetch starts.
    pub(super) fn start(
        &mut self,
        cause: Cause,
        urgency: Urgency,
        (previous, expires_at): (Option<Arc<IssuedToken>>, Option<Instant>),
        now: Now,
    ) -> StartFetch {
        self.newest += 1;
        self.state = Attempt::InFlight(InFlight {
            id: self.newest,
            urgency,
            // A task that has not even begun by then does not run.
            overdue_at: later(now.monotonic, GRACE),
            last_chance: false,
        });
        let failure = self.last_failure.as_ref();
        StartFetch {
            id: self.newest,
            cause,
            attempt: self.failures().saturating_add(1),
            failing: failure.is_some_and(|failure| !failure.error.is_transient()),
            previous,
            expires_at,
        }
    }

    /// The fetch goes into its next stage. `false`: it was given up.
    pub(super) fn advanced(&mut self, id: u64, until: Instant) -> bool {
        let fetch = self.in_flight(id).map(|fetch| {
            fetch.overdue_at = until;
            fetch.last_chance = false;
        });
        fetch.is_some()
    }

    pub(super) fn succeeded(&mut self) {
        self.state = Attempt::Idle;
        self.last_failure = None;
        self.lost.1 = 0;
    }

    /// The fetch has failed. The error says when the next one may start.
    pub(super) fn failed(
        &mut self,
        id: u64,
        error: Error,
        bounds: BackoffBounds,
        now: Now,
        chance: f32,
    ) -> Error {
        let urgency = self
            .in_flight(id)
            .map_or(Urgency::Waiting, |fetch| fetch.urgency);
        let counts = !error.is_not_attempted();
        if counts {
            let in_a_row = bounds.earlier.saturating_add(1);
            self.last_failure = Some(Failure {
                fetch: id,
                error: error.clone(),
                in_a_row,
            });
        }
        // A bound without an attempt: another process has asked, and failed.
        let backoff = match counts || error.max_backoff().is_some() {
            true => Backoff::after(error, &bounds, now, chance),
            false => Backoff::not_attempted(error, urgency, now),
        };
        let error = backoff.error(now);
        self.state = Attempt::BackingOff(backoff);
        self.lost.1 = 0;
        error
    }

    /// The fetch has ended without a result. Whether it was in flight still.
    pub(super) fn lost(&mut self, id: u64, now: Now) -> bool {
        if self.in_flight(id).is_none() {
            return false;
        }
        self.lost = (id, self.lost.1.saturating_add(1));
        self.state = Attempt::BackingOff(Backoff::lost(self.lost.1, now));
        true
    }

    /// Gives up a fetch whose runtime is gone or blocked.
    pub(super) fn drop_overdue(&mut self, now: Now) {
        let Attempt::InFlight(fetch) = &mut self.state else {
            return;
        };
        if fetch.overdue_at > now.monotonic {
            return;
        }
        // A clock that jumps overtakes a runtime that is well: one more second.
        fetch.overdue_at = later(now.monotonic, GRACE);
        if std::mem::replace(&mut fetch.last_chance, true) {
            self.state = Attempt::Idle;
        }
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.last_failure
            .as_ref()
            .map_or(0, |failure| failure.in_a_row)
    }

    /// The id and the urgency of the fetch in flight.
    pub(super) fn running(&self) -> Option<(u64, Urgency)> {
        match &self.state {
            Attempt::InFlight(fetch) => Some((fetch.id, fetch.urgency)),
            _ => None,
        }
    }

    /// When the fetch in flight has ended or got further.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        match &self.state {
            Attempt::InFlight(fetch) => Some(fetch.overdue_at),
            _ => None,
        }
    }

    /// When the backoff ends: that of the rate limit if `rate_limited`, else that
    /// of a failure.
    pub(super) fn backoff_ends(&self, rate_limited: bool, now: Now) -> Option<Instant> {
        match &self.state {
            Attempt::BackingOff(backoff) if backoff.is_rate_limited() == rate_limited => {
                Some(backoff.ends_at(now))
            }
            _ => None,
        }
    }

    /// The error of a caller whose time is up.
    pub(super) fn too_late(&self) -> Error {
        let error = Error::new(
            ErrorKind::Timeout,
            "no token arrived within the acquire timeout",
        );
        match &self.last_failure {
            Some(failure) => error.with_source(failure.error.clone()),
            None => error,
        }
    }
}
