//! How long to leave the token endpoint alone after a failure. Pure: time and
//! chance are arguments.

use std::time::{Duration, Instant};

use crate::clock::{Countdown, Now, doubled};
use crate::error::{Error, ErrorKind};
use crate::rate_limit::Urgency;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The longest turn in line that a cache waits for.
const MAX_TURN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A first failure is not reported to callers if the next try is this near.
const MAX_UNREPORTED: Duration = SECOND;
/// How often credentials that were refused are compared with the source's.
const CREDENTIALS_INTERVAL: Duration = Duration::from_secs(5);

/// Why no fetch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The last one failed.
    Failed,
    /// The first failure in a row, with a backoff of at most 1 s: callers wait
    /// for the next try.
    FailedOnce,
    /// The rate limit refused a fetch of this urgency; nothing was sent.
    RateLimited(Urgency),
    /// Fetches end without a result: only the background waits.
    Lost,
}

/// Until when no fetch starts, and why.
#[derive(Debug)]
pub(crate) struct Backoff {
    error: Error,
    reason: Reason,
    countdown: Countdown,
    /// When refused credentials may be compared with the source's again.
    credentials: Countdown,
}

impl Backoff {
    /// Backs off after a failed fetch. `chance` is in `0.0..1.0`.
    pub(super) fn after(error: Error, bounds: &BackoffBounds, now: Now, chance: f32) -> Self {
        let length = backoff_length(&error, bounds, chance);
        // A 429 is a clear answer.
        let hiccup = error.is_transient() && error.kind() != ErrorKind::RateLimited;
        let reason = match hiccup && bounds.earlier == 0 && length <= MAX_UNREPORTED {
            true => Reason::FailedOnce,
            false => Reason::Failed,
        };
        Self::lasting(error, reason, length, now)
    }

    /// Backs off after a failed try of anything that brings no token by itself.
    pub(crate) fn after_try(error: Error, earlier: u32, now: Now, chance: f32) -> Self {
        let bounds = BackoffBounds {
            earlier,
            token_left: None,
            max_permanent: BackoffBounds::MAX_PERMANENT_SINGLE,
        };
        Self::after(error, &bounds, now, chance)
    }

    /// The rate limit refused a fetch of this urgency.
    pub(super) fn rate_limited(error: Error, urgency: Urgency, now: Now) -> Self {
        let length = error.retry_after().unwrap_or(SECOND);
        // A cache that comes back earlier than its turn is refused again.
        let length = length.clamp(SECOND / 10, MAX_TURN);
        Self::lasting(error, Reason::RateLimited(urgency), length, now)
    }

    /// `in_a_row` fetches ended without a result.
    pub(super) fn lost(in_a_row: u32, now: Now) -> Self {
        let length = match in_a_row {
            0 | 1 => Duration::ZERO,
            more => doubled(SECOND / 10, more - 2, SECOND),
        };
        Self::lasting(lost_error(), Reason::Lost, length, now)
    }

    fn lasting(error: Error, reason: Reason, length: Duration, now: Now) -> Self {
        Self {
            error,
            reason,
            countdown: Countdown::starting(now, length),
            credentials: Countdown::starting(now, CREDENTIALS_INTERVAL),
        }
    }

    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.countdown.is_over(now)
    }

    /// Whether it holds back a fetch that requests wait for.
    pub(super) fn holds_callers(&self, now: Now) -> bool {
        // A refresh is in line for a later place than a waiting request.
        let background = Reason::RateLimited(Urgency::Background);
        !self.is_over(now) && self.reason != background && self.reason != Reason::Lost
    }

    /// Whether callers wait for its end rather than take its error.
    pub(super) fn is_waited_for(&self) -> bool {
        !matches!(self.reason, Reason::Failed)
    }

    /// The error for those who waited for the fetch that failed.
    pub(super) fn answer(&self, now: Now) -> Option<Error> {
        (self.reason == Reason::Failed).then(|| self.error(now))
    }

    pub(super) fn is_rate_limited(&self) -> bool {
        matches!(self.reason, Reason::RateLimited(_))
    }

    /// Whether the server refused the credentials. Changed ones end this backoff.
    pub(super) fn is_refused(&self, now: Now) -> bool {
        self.error.kind() == ErrorKind::InvalidClient && !self.is_over(now)
    }

    /// When refused credentials may be compared with the source's again.
    pub(super) fn credentials_check_at(&self, now: Now) -> Option<Instant> {
        self.is_refused(now).then(|| self.credentials.ends_at(now))
    }

    /// Whether to look now if the credentials have changed: at most every 5 s.
    pub(super) fn check_credentials(&mut self, now: Now) -> bool {
        let due = self.is_refused(now) && self.credentials.is_over(now);
        if due {
            self.credentials = Countdown::starting(now, CREDENTIALS_INTERVAL);
        }
        due
    }

    pub(super) fn ends_at(&self, now: Now) -> Instant {
        self.countdown.ends_at(now)
    }

    /// The error, with what is left of the backoff as its `retry_after`.
    pub(crate) fn error(&self, now: Now) -> Error {
        let left = self.countdown.left(now);
        self.error.clone().with_retry_after(left)
    }
}

/// What bounds a backoff, beside the error itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackoffBounds {
    /// Failures in a row before this one.
    pub(crate) earlier: u32,
    /// The rest of the life of a token that still serves.
    pub(crate) token_left: Option<Duration>,
    /// The longest backoff after a permanent failure.
    pub(crate) max_permanent: Duration,
}

impl BackoffBounds {
    /// The longest backoff after a permanent failure of a cache on its own.
    pub(super) const MAX_PERMANENT_SINGLE: Duration = Duration::from_secs(10 * 60);
    /// The same for one of many caches that share a rate limit.
    pub(super) const MAX_PERMANENT_SHARED: Duration = HOUR;
}

/// The longer of what the server asks for (1 s to 1 h) and our own backoff.
fn backoff_length(error: &Error, bounds: &BackoffBounds, chance: f32) -> Duration {
    let chance = chance.clamp(0.0, 1.0);
    let asked = error.retry_after().map(|after| after.clamp(SECOND, HOUR));
    let own = match error.kind() {
        // Without a word from the server a minute: the window of the limit that
        // OfficeRnD documents.
        ErrorKind::RateLimited if asked.is_none() => {
            let cap = doubled(MINUTE, bounds.earlier, 15 * MINUTE);
            // Half jitter: many processes that are refused together spread out.
            let own = cap.mul_f32(0.5 + chance / 2.0);
            let most = bounds.token_left.map_or(own, |left| left / 2);
            own.min(most.max(MINUTE / 2))
        }
        _ if error.is_transient() => transient(bounds, chance),
        _ => doubled(MINUTE, bounds.earlier, bounds.max_permanent),
    };
    let length = asked.map_or(own, |asked| asked.max(own));
    error.max_backoff().map_or(length, |most| length.min(most))
}

fn transient(bounds: &BackoffBounds, chance: f32) -> Duration {
    let cap = doubled(SECOND, bounds.earlier, MINUTE);
    // Full jitter, so that a fleet spreads out, but never a busy loop.
    let own = cap.mul_f32(chance).max(SECOND / 10);
    match bounds.token_left {
        // Three tries in the last minute: at about 60, 30 and 15 s. The next one
        // is at the expiry, when requests begin to wait for it.
        Some(left) if left <= MINUTE / 4 => left.max(SECOND / 10),
        Some(left) if left <= MINUTE => left / 2,
        Some(left) => own.min(left / 2),
        None => own,
    }
}

/// The error of a caller whose fetches end without a result.
pub(super) fn lost_error() -> Error {
    Error::new(
        ErrorKind::Runtime,
        "the token fetch ended without a result, again and again: the provider panics, or its \
         runtime shuts down",
    )
}

#[cfg(test)]
#[path = "backoff_tests.rs"]
mod tests;
