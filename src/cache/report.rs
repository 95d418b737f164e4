//! The state of a cache, told.

use std::fmt;
use std::time::Instant;

use tokio::sync::watch;

use super::core::{Core, State};
use super::lifetime::Stage;
use super::status::{Phase, TokenStatus};
use crate::sync::Ordering;

impl Core {
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
        let spent = state.spent.as_ref().map(|spent| spent.until);
        let entry = self.slot.get();
        let due = entry.map(|entry| self.due_at(&state, &entry, now));
        Some(
            [hold, spent, due]
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

    pub(super) fn tell(&self, state: &State, now: Instant) {
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
        let spent = state.spent.as_ref().map(|spent| spent.until);
        let next_attempt = [held, spent, state.heal_at];
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
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("settings", &self.settings)
            .field("allowance", self.applicant.allowance())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
