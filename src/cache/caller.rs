//! A caller that waits for a token.

use std::time::{Duration, Instant};

use super::attempt::{Attempt, Attempts};
use super::backoff::lost_error;
use super::lifetime::{Freshness, IssuedToken};
use crate::clock::Now;
use crate::error::{Error, ErrorKind};

/// A fetch that ends without a result is started anew for a caller once.
const MAX_LOST: u32 = 1;

/// A caller that wants a token, and all that it remembers while it waits.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) deadline: Instant,
    /// Only a token of a later generation will do.
    pub(super) newer_than: Option<u64>,
    /// Only a token with so much life left will do.
    pub(super) min_life: Duration,
    /// The fetch that it last waited for.
    pub(super) waited_for: Option<u64>,
    /// Fetches that ended with neither a usable token nor an error.
    lost_fetches: u32,
}

impl Caller {
    /// A caller that takes any living token, and waits for it until `deadline`.
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            newer_than: None,
            min_life: Duration::ZERO,
            waited_for: None,
            lost_fetches: 0,
        }
    }

    /// A caller that takes only a token with so much life left.
    pub(super) fn for_life(min_life: Duration, deadline: Instant) -> Self {
        Self {
            min_life,
            ..Self::until(deadline)
        }
    }

    /// A caller that takes only a token of a later generation.
    pub(super) fn newer_than(generation: u64, deadline: Instant) -> Self {
        Self {
            newer_than: Some(generation),
            ..Self::until(deadline)
        }
    }

    /// Whether any token that serves will do.
    pub(super) fn takes_any_token(&self) -> bool {
        self.newer_than.is_none() && self.min_life.is_zero()
    }

    /// Whether it may go on waiting, by what became of the fetch that it waited
    /// for. `token` is the current one.
    pub(super) fn check(
        &mut self,
        fetches: &Attempts,
        token: Option<&IssuedToken>,
        now: Now,
    ) -> Result<(), Error> {
        let brought = token.filter(|token| Some(token.fetch) == self.waited_for);
        let expired = brought.is_some_and(|token| token.freshness(now) == Freshness::Expired);
        let too_short = |token: &IssuedToken| token.lifetime.expired < self.min_life;
        if token.is_some_and(too_short) || (brought.is_some() && !expired) {
            return Err(Error::new(
                ErrorKind::Denied,
                "the server grants tokens for a shorter life than this caller needs",
            ));
        }
        if self.waited_for.is_none() {
            return Ok(());
        }
        if expired || self.waited_for == Some(fetches.lost.0) {
            self.waited_for = None;
            self.lost_fetches += 1;
            if self.lost_fetches > MAX_LOST {
                return Err(if expired {
                    expired_error()
                } else {
                    lost_error()
                });
            }
        }
        let failed = fetches.last_failure.as_ref().map(|failure| failure.fetch);
        match &fetches.state {
            // Also if the backoff is over: this is the answer to its fetch.
            Attempt::BackingOff(backoff) if failed == self.waited_for && failed.is_some() => {
                backoff.answer(now).map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }
}

fn expired_error() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "each new token had expired before it could be used: the machine was suspended, or the \
         tokens live too short",
    )
}
