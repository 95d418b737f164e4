//! How long to leave the token endpoint alone: after failures, and after
//! tokens that were rejected. Pure decisions; chance is an argument.

use std::time::{Duration, Instant};

use crate::clock::later;
use crate::error::Error;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The last fetch failed: until when every caller is told so at once.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    error: Error,
    pub(crate) failures: u32,
    pub(crate) until: Instant,
}

impl Hold {
    /// `earlier` failures came before this one; `chance` is in `0.0..1.0`.
    pub(crate) fn after(error: Error, earlier: u32, now: Instant, chance: f32) -> Self {
        let length = match error.retry_after() {
            Some(after) => after.clamp(SECOND, HOUR),
            None if error.is_transient() => {
                // Full jitter, so that a fleet spreads out; but a hold that
                // nobody can notice would be none.
                let cap = doubled(SECOND, earlier, MINUTE);
                cap.mul_f32(chance.clamp(0.0, 1.0)).max(SECOND / 10)
            }
            None => doubled(MINUTE, earlier, 10 * MINUTE),
        };
        let length = if error.is_transient() {
            length
        } else {
            length.max(doubled(MINUTE, earlier, 10 * MINUTE))
        };
        Self {
            error,
            failures: earlier.saturating_add(1),
            until: later(now, length),
        }
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        now < self.until
    }

    /// The failure itself, for the status.
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }

    /// The remembered error, with what is left of the hold.
    pub(crate) fn remembered(&self, now: Instant) -> Error {
        let left = self.until.saturating_duration_since(now);
        self.error.clone().with_retry_after(left)
    }
}

/// Keeps a server that rejects whatever it is given from costing a token a
/// request: a 401 of OfficeRnD may mean a missing scope, which no new token
/// cures.
#[derive(Debug, Default)]
pub(crate) struct Damping {
    /// Tokens rejected one after the other.
    strikes: u32,
}

impl Damping {
    /// One more was rejected. How long to go on with it before the next.
    pub(crate) fn strike(&mut self) -> Duration {
        self.strikes = self.strikes.saturating_add(1);
        match self.strikes {
            1 => Duration::ZERO,
            more => doubled(MINUTE, more - 2, HOUR),
        }
    }

    /// A token reached its `refresh_at` and nobody had rejected it.
    pub(crate) fn forget(&mut self) {
        self.strikes = 0;
    }
}

/// `base`, doubled so many times, at most `cap`.
fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times)).min(cap)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn hold(error: Error, earlier: u32, chance: f32) -> Duration {
        let now = Instant::now();
        Hold::after(error, earlier, now, chance).until - now
    }

    #[test]
    fn the_table_of_holds() {
        let s = Duration::from_secs;
        let down = || Error::new(ErrorKind::Transport, "down");
        let wrong = || Error::new(ErrorKind::InvalidClient, "wrong");
        #[rustfmt::skip]
        let table = [
            (down(), 0, 1.0, s(1)),
            (down(), 0, 0.5, s(1) / 2),
            (down(), 0, 0.0, s(1) / 10),
            (down(), 3, 1.0, s(8)),
            (down(), 6, 1.0, s(60)),
            (down(), u32::MAX, 1.0, s(60)),
            (down().with_retry_after(s(20)), 3, 0.0, s(20)),
            (down().with_retry_after(s(0)), 0, 0.0, s(1)),
            (down().with_retry_after(s(1_000_000)), 0, 0.0, s(3600)),
            (wrong(), 0, 0.0, s(60)),
            (wrong(), 2, 0.0, s(240)),
            (wrong(), 9, 0.0, s(600)),
        ];
        for (error, earlier, chance, length) in table {
            assert_eq!(
                hold(error.clone(), earlier, chance),
                length,
                "{error:?} {earlier}"
            );
        }
    }

    #[test]
    fn the_first_rejection_heals_at_once_and_the_next_ones_ever_later() {
        let mut damping = Damping::default();
        let minutes: Vec<u64> = (0..9).map(|_| damping.strike().as_secs() / 60).collect();
        assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        damping.forget();
        assert_eq!(damping.strike(), Duration::ZERO);
    }
}
