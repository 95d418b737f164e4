//! What a flight brings back, and what a server says of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::backoff::Hold;
use super::core::{Core, State};
use super::fetch::{Flight, Outcome};
use super::lifetime::{Life, Stage};
use super::slot::CachedToken;
use super::token_id::TokenId;
use crate::allowance::Permit;
use crate::clock::{Age, later};
use crate::error::{Error, ErrorKind};
use crate::observability;
use crate::sync::Ordering;
use crate::token::AccessToken;

/// What is told of a token that landed.
struct News {
    /// When it was asked for, and for how long it was granted.
    issued: (SystemTime, Duration),
    /// The age of the one before it.
    replaced: Option<Duration>,
}

impl Core {
    /// The flight goes into its next stage, which ends by `until`; with what
    /// it may send, which it gives back as it ends or is given up. `false`: it
    /// was given up already and must send nothing.
    pub(super) fn extend(&self, id: u64, until: Instant, permit: Option<Permit>) -> bool {
        let mut state = self.lock();
        let Some(flight) = state.flight.as_mut().filter(|flight| flight.id == id) else {
            return false;
        };
        flight.overdue = until;
        flight.permit = permit;
        true
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
        let published = match result {
            Ok((token, age)) => self.publish(&mut state, token, age, now),
            Err(error) => Err(error),
        };
        let (outcome, news) = match published {
            Ok((token, news)) => (Ok(token), Some(news)),
            Err(error) => (Err(error), None),
        };
        if let Err(error) = &outcome {
            let earlier = state.hold.as_ref().map_or(0, |hold| hold.failures);
            let hold = |earlier| Hold::after(error.clone(), earlier, now, fastrand::f32());
            if error.is_not_attempted() {
                state.spent = Some(hold(0));
            } else {
                let hold = hold(earlier);
                if error.kind() == ErrorKind::RateLimited {
                    let clock = &*self.settings.clock;
                    self.applicant.refused(hold.until, clock);
                }
                state.hold = Some(hold);
            }
        }
        self.tell(&state, now);
        // Recorders are other people's code: none runs under the lock.
        drop(state);
        if let Some(News { issued, replaced }) = news {
            observability::token_landed(issued.0, issued.1);
            if let Some(age) = replaced {
                observability::token_replaced(age);
            }
        }
        Some(outcome)
    }

    fn publish(
        &self,
        state: &mut State,
        token: AccessToken,
        age: Age,
        now: Instant,
    ) -> Result<(AccessToken, News), Error> {
        let wall = self.settings.clock.wall();
        let granted = token.expires_in();
        let last = self.slot.get();
        let same = |last: &&Arc<CachedToken>| last.token.header_value() == token.header_value();
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
        let issued = wall.checked_sub(age.at(now, wall)).unwrap_or(wall);
        let news = News {
            issued: (issued, granted),
            replaced: last.as_ref().map(|last| last.age(now, wall)),
        };
        if let Some(last) = last {
            if !last.is_rejected() && last.stage(now, wall) != Stage::Fresh {
                state.damping.forget();
            }
        }
        state.generation += 1;
        state.hold = None;
        state.heal_at = None;
        state.spent = None;
        let token = token.with_generation(state.generation);
        let id = TokenId::new(&self.this, state.generation);
        self.slot
            .publish(CachedToken::new(id, token.clone(), life, age));
        Ok((token, news))
    }

    /// The flight is gone without a result: its runtime ended, or it panicked.
    /// Whether it was under way still.
    pub(super) fn lost(&self, id: u64) -> bool {
        let now = self.now();
        let mut state = self.lock();
        let lost = state.flight.take_if(|flight| flight.id == id).is_some();
        if lost {
            self.quiet_until.store(0, Ordering::Relaxed);
            self.tell(&state, now);
        }
        lost
    }

    /// A server rejected this token. Whether that is news.
    pub(super) fn reject(self: &Arc<Self>, rejected: u64) -> bool {
        let now = self.now();
        let (generation, heal_in, launch) = {
            let mut state = self.lock();
            let Some(entry) = self.slot.get() else {
                return false;
            };
            if entry.token.generation() != rejected || !entry.reject() {
                return false;
            }
            if self.stage(&entry) != Stage::Fresh {
                state.damping.forget();
            }
            let heal_in = state.damping.strike();
            state.heal_at = Some(later(now, heal_in));
            self.quiet_until.store(0, Ordering::Relaxed);
            let launch = self.due(&mut state, now);
            self.tell(&state, now);
            (entry.token.generation(), heal_in, launch)
        };
        observability::rejected(generation, heal_in);
        if let Some(launch) = launch {
            launch.spawn();
        }
        true
    }
}
