//! Every decision about one token, as a pure state machine.
//!
//! It has no lock, task, clock or randomness of its own: time, chance and the
//! results of fetches come in as arguments, decisions go out as values, and
//! [`TokenCache`](super::TokenCache) acts on them. A caller that waits carries
//! no result: when anything has changed it asks again.
//!
//! Invariants: at most one fetch is in flight; no expired token is served; a
//! wait ends by the caller's deadline; from the end of a fetch to the start of
//! the next, time passes (except once after a fetch that ended without result).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{Attempt, Attempts, Completed, StartFetch};
use super::backoff::BackoffBounds;
use super::caller::Caller;
use super::lifetime::{Freshness, IssuedToken, Lifetime, RefreshPolicy};
use super::rejection::{Rejection, Unauthorized};
use super::status::TokenStatus;
use crate::clock::{Age, Now};
use crate::error::Error;
use crate::provider::Cause;
use crate::rate_limit::Urgency;
use crate::token::AccessToken;

/// One token: the current one, the fetch of the next, and the 401s to it.
#[derive(Debug)]
pub(super) struct Lifecycle {
    policy: RefreshPolicy,
    /// The longest backoff after a permanent failure.
    max_backoff: Duration,
    token: Option<Arc<IssuedToken>>,
    pub(super) fetch: Attempts,
    rejection: Rejection,
}

/// What a caller does next.
#[derive(Debug)]
pub(super) enum Decision {
    Ready(AccessToken),
    /// Start the fetch, if there is one; ask again after the next change, and
    /// at `until` at the latest.
    Wait {
        until: Instant,
        start: Option<StartFetch>,
    },
    /// Ask the provider whether it has other credentials by now. If so, tell
    /// the machine and ask again; if not, fail with this error.
    CheckCredentials(Error),
    Failed(Error),
}

/// An action that is due in the background.
#[derive(Debug)]
pub(super) enum Due {
    Fetch(StartFetch),
    /// Ask the provider whether it has other credentials than those that the
    /// server refused. If so, tell the machine and check again.
    CheckCredentials,
}

/// Every moment that a decision waits for.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    /// The token is old enough to be refreshed in the background.
    RefreshDue,
    /// Requests begin to wait for the new token.
    ExpiringSoon,
    /// The token is never sent again.
    Expired,
    /// A failed fetch may be tried again, not before.
    BackoffEnds,
    /// Refused credentials are compared with the source's, not before.
    CredentialsCheck,
    /// The rate limit has a request to spare, not before.
    WindowReopens,
    /// A rejected token is replaced, at the latest.
    ReplaceRejected,
    /// The fetch in flight has ended, at the latest.
    FetchOverdue,
}

impl Lifecycle {
    pub(super) fn new(policy: RefreshPolicy, max_backoff: Duration) -> Self {
        Self {
            policy,
            max_backoff,
            token: None,
            fetch: Attempts::new(),
            rejection: Rejection::default(),
        }
    }

    /// A caller wants a token, or asks again.
    pub(super) fn acquire(&mut self, caller: &mut Caller, now: Now) -> Decision {
        let old = match self.usable(caller, now) {
            Some(token) if token.freshness(now) <= Freshness::RefreshDue => {
                return Decision::Ready(token.token.clone());
            }
            old => old,
        };
        // From here the caller waits for a new token. The old one, while it
        // lives, serves if the new one does not come in time.
        let patience = match &old {
            Some(old) => old
                .reaches(old.lifetime.last_wait, now)
                .min(caller.deadline),
            None => caller.deadline,
        };
        match (self.wait_for_new(caller, patience, now), old) {
            (Ok((until, start)), _) => Decision::Wait { until, start },
            (Err(_), Some(old)) => Decision::Ready(old.token.clone()),
            (Err(error), None) => match self.fetch.check_credentials(now) {
                true => Decision::CheckCredentials(error),
                false => Decision::Failed(error),
            },
        }
    }

    /// A token that this caller may use.
    pub(super) fn usable(&self, caller: &Caller, now: Now) -> Option<Arc<IssuedToken>> {
        let token = self.token.as_ref()?;
        let newer = caller
            .newer_than
            .is_none_or(|old| token.token.generation() > old);
        let lives =
            token.freshness(now) != Freshness::Expired && token.left(now) >= caller.min_life;
        (newer && lives).then(|| Arc::clone(token))
    }

    /// Until when to wait, and the fetch to start; or why not.
    fn wait_for_new(
        &mut self,
        caller: &mut Caller,
        patience: Instant,
        now: Now,
    ) -> Result<(Instant, Option<StartFetch>), Error> {
        self.fetch.drop_overdue(now);
        caller.check(&self.fetch, self.token.as_deref(), now)?;
        if patience <= now.monotonic {
            return Err(self.fetch.too_late());
        }
        match &mut self.fetch.state {
            Attempt::InFlight(fetch) => {
                fetch.urgency = Urgency::Waiting;
                caller.waited_for = Some(fetch.id);
                return Ok((patience.min(fetch.overdue_at), None));
            }
            Attempt::BackingOff(backoff) if backoff.holds_callers(now) => {
                let ends = backoff.ends_at(now);
                if backoff.is_waited_for() && ends <= patience {
                    return Ok((ends, None));
                }
                return Err(backoff.error(now));
            }
            Attempt::BackingOff(_) | Attempt::Idle => {}
        }
        let start = self.start(Urgency::Waiting, caller.newer_than.is_some(), now);
        caller.waited_for = Some(start.id);
        let overdue = self.at(Deadline::FetchOverdue, now).unwrap_or(patience);
        Ok((patience.min(overdue), Some(start)))
    }

    /// A request found a token that is not fresh, or the timer fired: what is
    /// due in the background.
    pub(super) fn check(&mut self, now: Now) -> Option<Due> {
        self.fetch.drop_overdue(now);
        if self.fetch.running().is_some() || self.next_check_at(now) > now.monotonic {
            return None;
        }
        Some(match self.fetch.check_credentials(now) {
            true => Due::CheckCredentials,
            false => Due::Fetch(self.start(Urgency::Background, false, now)),
        })
    }

    /// Before this, nothing is due in the background.
    pub(super) fn next_check_at(&self, now: Now) -> Instant {
        let at = |deadline| self.at(deadline, now);
        if let Some(overdue) = at(Deadline::FetchOverdue) {
            return overdue;
        }
        // A refresh is in line for a later place than a waiting request: it
        // tries again when requests begin to wait.
        let soon = at(Deadline::ExpiringSoon).filter(|&soon| soon > now.monotonic);
        let reopens = at(Deadline::WindowReopens).map(|at| soon.map_or(at, |soon| soon.min(at)));
        // Other credentials end a backoff.
        let allowed = at(Deadline::CredentialsCheck)
            .or(at(Deadline::BackoffEnds))
            .or(reopens);
        self.due_at(now).max(allowed).unwrap_or(now.monotonic)
    }

    /// When the current token is to be replaced.
    fn due_at(&self, now: Now) -> Option<Instant> {
        let due = [Deadline::RefreshDue, Deadline::ReplaceRejected];
        due.into_iter()
            .filter_map(|deadline| self.at(deadline, now))
            .min()
    }

    fn at(&self, deadline: Deadline, now: Now) -> Option<Instant> {
        let age = |turn: fn(&Lifetime) -> Duration| {
            let token = self.token.as_ref()?;
            Some(token.reaches(turn(&token.lifetime), now))
        };
        match deadline {
            Deadline::RefreshDue => age(|life| life.refresh_due),
            Deadline::ExpiringSoon => age(|life| life.expiring_soon),
            Deadline::Expired => age(|life| life.expired),
            Deadline::BackoffEnds => self.fetch.backoff_ends(false, now),
            Deadline::CredentialsCheck => self.fetch.credentials_check_at(now),
            Deadline::WindowReopens => self.fetch.backoff_ends(true, now),
            Deadline::ReplaceRejected => self.rejection.replace_at(now),
            Deadline::FetchOverdue => self.fetch.overdue_at(),
        }
    }

    fn start(&mut self, urgency: Urgency, manual: bool, now: Now) -> StartFetch {
        let cause = match &self.token {
            Some(_) if self.rejection.is_rejected() => Cause::Rejected,
            _ if manual => Cause::Manual,
            None => Cause::Cold,
            Some(token) if token.freshness(now) <= Freshness::RefreshDue => Cause::Ahead,
            Some(_) => Cause::Expired,
        };
        let expires_at = self.at(Deadline::Expired, now);
        let previous = (self.token.clone(), expires_at);
        self.fetch.start(cause, urgency, previous, now)
    }

    /// The fetch has ended. `None`: it was given up, its result is dropped.
    pub(super) fn completed(
        &mut self,
        id: u64,
        result: Result<(AccessToken, Age), Error>,
        now: Now,
        chance: f32,
    ) -> Option<Completed> {
        self.fetch.in_flight(id)?;
        let old = self.token.as_deref();
        let generation = old.map_or(0, |old| old.token.generation()) + 1;
        let issued = result.and_then(|(token, age)| {
            let minted = (token.with_generation(generation), age);
            let old = old.filter(|_| !self.rejection.is_rejected());
            IssuedToken::replacing(old, &self.policy, minted, (id, chance), now)
        });
        Some(match issued {
            Ok(issued) => {
                self.rejection
                    .replaced(old.is_some_and(|old| old.freshness(now) != Freshness::Fresh));
                let replaced = old.map(|old| old.age(now));
                let issued = Arc::new(issued);
                self.token = Some(Arc::clone(&issued));
                self.fetch.succeeded();
                Completed::Published { issued, replaced }
            }
            Err(error) => {
                let left = old.map(|old| old.left(now)).filter(|left| !left.is_zero());
                let bounds = BackoffBounds {
                    earlier: self.fetch.failures(),
                    token_left: left,
                    max_permanent: self.max_backoff,
                };
                Completed::Failed(self.fetch.failed(id, error, bounds, now, chance))
            }
        })
    }

    /// A server answered 401 to this token. When its replacement is due, if
    /// this is its first 401.
    pub(super) fn rejected(
        &mut self,
        generation: u64,
        challenged: bool,
        now: Now,
    ) -> Option<Instant> {
        let token = self.token.as_ref()?;
        if token.token.generation() != generation {
            return None;
        }
        if token.freshness(now) != Freshness::Fresh && !self.rejection.is_rejected() {
            self.rejection.forget();
        }
        let unauthorized = Unauthorized {
            challenged,
            fetch: token.fetch,
            newest_fetch: self.fetch.newest,
        };
        let first = self.rejection.rejected(unauthorized, now);
        first.then(|| self.rejection.replace_at(now)).flatten()
    }

    /// A server answered 2xx to this token.
    pub(super) fn accepted(&mut self, generation: u64) {
        let current = self.token.as_ref();
        if current.is_some_and(|token| token.token.generation() == generation) {
            self.rejection.accepted();
        }
    }

    /// Whether a newer token than this serves, or is on its way.
    pub(super) fn is_replacing(&self, generation: u64, now: Now) -> bool {
        let newer = Caller::newer_than(generation, now.monotonic);
        self.usable(&newer, now).is_some() || self.at(Deadline::FetchOverdue, now).is_some()
    }

    pub(super) fn status(&self, token_requests: u64, now: Now) -> TokenStatus {
        let held = [Deadline::BackoffEnds, Deadline::WindowReopens];
        let held = held
            .into_iter()
            .filter_map(|deadline| self.at(deadline, now))
            .max();
        let replace = self.due_at(now).filter(|_| self.rejection.is_rejected());
        TokenStatus::describe(
            self.token.as_deref(),
            self.rejection.is_rejected(),
            &self.fetch,
            held.max(replace),
            token_requests,
            now,
        )
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
