//! What a 401 means: a revoked token, or a scope that no new token brings? Pure.
//!
//! A schedule decides when a rejected token is replaced: at once, then 60 s,
//! doubling to 60 min, for as long as the replacements are rejected too. The
//! evidence of later responses may bring a replacement forward, never put it off.

use std::mem;
use std::time::{Duration, Instant};

use crate::clock::{Countdown, Now, doubled, later};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A challenge that names the token invalid counts as so many 401s.
const CHALLENGE_WEIGHT: u32 = 8;
/// A run of 401s is no revocation before it is this long, whatever came before.
const MIN_RUN: u32 = 8;
/// After a revocation, so many requests to forbidden paths may come before one
/// to another path.
const MAX_STRAY: u32 = 2;
/// A run of 401s is no revocation before it has lasted for 5 s.
const MIN_RUN_TIME: Duration = Duration::from_secs(5);
/// Between two decisions that a token is revoked.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The evidence against the current token, and what earlier tokens showed.
#[derive(Debug, Default)]
pub(crate) struct Rejection {
    /// Set while the current token is rejected: when to replace it.
    replace: Option<Countdown>,
    /// The current token was accepted.
    alive: bool,
    /// The token before it was accepted.
    was_alive: bool,
    /// 401s in a row to the current token, by weight, and how many.
    run: u32,
    run_count: u32,
    run_began: Option<Instant>,
    /// The longest run of a token that was good after all, fading with time.
    longest: u32,
    /// The same since a token last lived until its refresh was due.
    longest_recent: u32,
    /// The current token counts as revoked: the run that this took.
    revoked_by: Option<u32>,
    /// The same of the token before it, until the current one shows whether
    /// that was right.
    unconfirmed: Option<u32>,
    decided: Option<Instant>,
    /// Tokens rejected one after the other.
    strikes: u32,
    /// The newest fetch when the last 401 was counted: its token was requested
    /// before the 401 and cannot be the answer to it.
    newest_fetch: u64,
}

/// A 401 to the current token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unauthorized {
    /// The response says `error="invalid_token"`.
    pub(crate) challenged: bool,
    /// The fetch that brought the token.
    pub(crate) fetch: u64,
    /// The newest fetch that was started.
    pub(crate) newest_fetch: u64,
}

impl Rejection {
    /// Counts a 401 to the current token. Whether it is the token's first.
    pub(crate) fn rejected(&mut self, unauthorized: Unauthorized, now: Now) -> bool {
        let weight = if unauthorized.challenged {
            CHALLENGE_WEIGHT
        } else {
            1
        };
        self.run = self.run.saturating_add(weight);
        self.run_count = self.run_count.saturating_add(1);
        let began = *self.run_began.get_or_insert(now.monotonic);
        let first = self.replace.is_none();
        if first {
            self.strike(unauthorized);
            let delay = match self.strikes {
                0 | 1 => Duration::ZERO,
                more => doubled(MINUTE, more - 2, HOUR),
            };
            self.replace = Some(Countdown::starting(now, delay));
        } else if self.is_revoked(began, now.monotonic) {
            // Not the run, which is longer if it had to last for 5 s.
            self.revoked_by = Some(self.enough());
            self.decided = Some(now.monotonic);
            self.strike(unauthorized);
            self.replace = Some(Countdown::starting(now, Duration::ZERO));
        }
        first
    }

    fn is_revoked(&mut self, began: Instant, now: Instant) -> bool {
        let was_good = self.alive || (self.was_alive && self.unconfirmed.is_none());
        if !was_good || self.run < self.enough() {
            return false;
        }
        if let Some(run) = self.unconfirmed.take() {
            // The new token gets as long a run as the one before it, though a
            // request was accepted: that was no revocation.
            self.learn(run);
        }
        let long_ago = |at: Instant, span| now >= later(at, span);
        self.run >= self.enough()
            && long_ago(began, MIN_RUN_TIME)
            && self.decided.is_none_or(|at| long_ago(at, MIN_INTERVAL))
            && self.revoked_by.is_none()
    }

    /// The shortest run that counts.
    fn enough(&self) -> u32 {
        MIN_RUN.saturating_add(self.longest.saturating_mul(2))
    }

    fn strike(&mut self, unauthorized: Unauthorized) {
        if unauthorized.fetch > self.newest_fetch || self.strikes == 0 {
            self.strikes = self.strikes.saturating_add(1);
        }
        self.newest_fetch = unauthorized.newest_fetch;
    }

    /// A request with the current token was accepted (2xx): its 401s, if there
    /// were any, meant a missing scope.
    pub(crate) fn accepted(&mut self) {
        if !self.alive && self.run_count > MAX_STRAY {
            // The run went on after the replacement: that was no cure.
            let before = self.unconfirmed.take().unwrap_or(0);
            self.run = self.run.saturating_add(before);
        }
        self.alive = true;
        self.revoked_by = None;
        self.learn(self.run);
        self.end_run();
    }

    /// A new token replaces the current one. `until_refresh_due`: the current
    /// one lived until its refresh was due.
    pub(crate) fn replaced(&mut self, until_refresh_due: bool) {
        if until_refresh_due {
            match self.is_rejected() {
                true => self.fade(self.longest_recent),
                false => self.forget(),
            }
        }
        self.unconfirmed = self.revoked_by.take().or(self.unconfirmed);
        self.replace = None;
        self.was_alive = mem::take(&mut self.alive);
        self.end_run();
    }

    /// A token served until its refresh was due without a 401.
    pub(crate) fn forget(&mut self) {
        self.strikes = 0;
        self.fade(0);
    }

    /// A token lived until its refresh was due: what is older counts half, and so
    /// does a decision that was not shown to be wrong.
    fn fade(&mut self, recent: u32) {
        self.longest_recent = 0;
        let unconfirmed = self.unconfirmed.take().unwrap_or(0);
        self.longest = (self.longest / 2).max(recent).max(unconfirmed / 2);
    }

    /// This was the run of a good token.
    fn learn(&mut self, run: u32) {
        self.longest = self.longest.max(run);
        self.longest_recent = self.longest_recent.max(run);
    }

    fn end_run(&mut self) {
        self.run = 0;
        self.run_count = 0;
        self.run_began = None;
    }

    /// Whether the current token was rejected.
    pub(crate) fn is_rejected(&self) -> bool {
        self.replace.is_some()
    }

    /// When to replace the current token, if it was rejected.
    pub(crate) fn replace_at(&self, now: Now) -> Option<Instant> {
        Some(self.replace.as_ref()?.ends_at(now))
    }
}

#[cfg(test)]
#[path = "rejection_tests.rs"]
mod tests;
