//! Whether a stored token will do for this fetch. Pure.

use std::time::Duration;

use crate::provider::Cause;

/// A replacement of a rejected token is itself replaced after this at the
/// earliest.
const MIN_REPLACEMENT_AGE: Duration = Duration::from_secs(60);
/// A token with less left is not worth a hand-over.
const MIN_LIFE_LEFT: Duration = Duration::from_secs(60);

/// A stored token, beside the one that this process has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The rest of its life.
    pub(super) left: Duration,
    /// Its whole life.
    pub(super) granted: Duration,
    /// It replaced a token that a server had answered 401 to.
    pub(super) replaced_rejected: bool,
    /// The token that this process has, if any.
    pub(super) current: Option<CurrentToken>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct CurrentToken {
    pub(super) left: Duration,
    /// It is the same text as the stored token.
    pub(super) same: bool,
    /// The stored token was asked for after the current one.
    pub(super) is_older: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Use the stored token.
    Accept,
    /// Ask for a new one.
    Refuse,
    /// Keep the current token for this long: it was rejected, but it has just
    /// replaced a rejected one itself. A 401 may mean a missing scope, and then
    /// each process that starts would spend a request to find that out.
    KeepFor(Duration),
}

impl Candidate {
    /// The rest that can be relied on, after clocks and rounding.
    pub(super) fn safe_life(&self) -> Duration {
        let margin = Duration::from_secs(1).min(self.granted / 20);
        self.left.saturating_sub(margin)
    }

    pub(super) fn verdict(&self, cause: Cause) -> Verdict {
        if let Some(wait) = self.too_young_to_replace(cause) {
            return Verdict::KeepFor(wait);
        }
        match self.is_acceptable(cause) {
            true => Verdict::Accept,
            false => Verdict::Refuse,
        }
    }

    fn is_acceptable(&self, cause: Cause) -> bool {
        let life = self.safe_life();
        if life.is_zero() || life < MIN_LIFE_LEFT.min(self.granted / 4) {
            return false;
        }
        let Some(current) = self.current else {
            return true;
        };
        match cause {
            // A newer one, even if it lives shorter.
            Cause::Rejected | Cause::Manual => !current.same && current.is_older,
            // Another process asked since, and the server repeated the token:
            // to ask once more would bring the same.
            _ if current.same => current.is_older,
            // A token that merely ends a little later is due for a refresh too.
            Cause::Ahead => self.left > current.left && self.left >= self.granted / 2,
            Cause::Cold | Cause::Expired => self.left > current.left,
        }
    }

    fn too_young_to_replace(&self, cause: Cause) -> Option<Duration> {
        let same = self.current.is_some_and(|current| current.same);
        let age = self.granted.saturating_sub(self.left);
        let wait = MIN_REPLACEMENT_AGE.saturating_sub(age);
        let young = self.replaced_rejected && !wait.is_zero();
        (cause == Cause::Rejected && same && young).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Accept, KeepFor, Refuse};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn candidate(left: u64, current: Option<(u64, bool, bool)>) -> Candidate {
        let current = match current {
            Some((left, same, is_older)) => Some(CurrentToken {
                left: s(left),
                same,
                is_older,
            }),
            None => None,
        };
        Candidate {
            left: s(left),
            granted: s(3600),
            replaced_rejected: false,
            current,
        }
    }

    #[test]
    fn the_table_of_verdicts() {
        use Cause::{Ahead, Cold, Expired, Manual, Rejected};
        // Cause, left of the stored, (left, same, is older) of the current.
        #[rustfmt::skip]
        let table = [
            (Cold,     3000, None, Accept),
            (Cold,       61, None, Accept),
            (Cold,       60, None, Refuse),
            (Manual,   3000, None, Accept),
            (Expired,  3000, Some((5, false, true)), Accept),
            (Expired,  3000, Some((3000, true, false)), Refuse),
            (Ahead,    3590, Some((300, false, true)), Accept),
            (Ahead,     330, Some((300, false, true)), Refuse),
            (Ahead,     300, Some((300, true, false)), Refuse),
            (Ahead,     300, Some((300, true, true)), Accept),
            (Rejected, 3500, Some((3500, true, false)), Refuse),
            (Rejected, 3500, Some((3500, true, true)), Refuse),
            (Rejected, 3599, Some((3500, false, false)), Refuse),
            (Rejected, 3599, Some((3500, false, true)), Accept),
            // New tokens live shorter than what was left of the revoked one.
            (Rejected,  900, Some((3500, false, true)), Accept),
            (Manual,   3500, Some((3500, true, true)), Refuse),
            (Manual,   3599, Some((3598, false, true)), Accept),
        ];
        for (cause, left, current, verdict) in table {
            let candidate = candidate(left, current);
            assert_eq!(candidate.verdict(cause), verdict, "{cause:?} {candidate:?}");
        }
    }

    #[test]
    fn only_a_young_replacement_that_is_rejected_itself_is_kept() {
        let verdict = |cause, same, replaced_rejected, left| {
            let mut candidate = candidate(left, Some((left, same, false)));
            candidate.replaced_rejected = replaced_rejected;
            candidate.verdict(cause)
        };
        assert_eq!(verdict(Cause::Rejected, true, true, 3590), KeepFor(s(50)));
        assert_eq!(verdict(Cause::Rejected, true, true, 3540), Refuse);
        assert_eq!(verdict(Cause::Rejected, true, false, 3590), Refuse);
        assert_eq!(verdict(Cause::Rejected, false, true, 3590), Refuse);
        assert_eq!(verdict(Cause::Manual, true, true, 3590), Refuse);
    }

    #[test]
    fn short_lives_have_small_margins() {
        let with = |left, granted| Candidate {
            left: Duration::from_millis(left),
            granted: s(granted),
            replaced_rejected: false,
            current: None,
        };
        assert_eq!(with(3_600_000, 3600).safe_life(), s(3599));
        assert_eq!(with(2000, 2).safe_life(), Duration::from_millis(1900));
        assert_eq!(with(600, 2).verdict(Cause::Cold), Accept);
        assert_eq!(with(599, 2).verdict(Cause::Cold), Refuse);
    }
}
