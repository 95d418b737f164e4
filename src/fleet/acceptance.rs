//! Whether a sibling's token will do. Pure.

use std::time::Duration;

use crate::provider::Cause;

/// A stored token, against the one that this process has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// What is left of it, to the last moment.
    pub(super) left: Duration,
    /// The life that it was granted with.
    pub(super) granted: Duration,
    /// The token that this process has; `None` if it has none.
    pub(super) held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// What is left of it.
    pub(super) left: Duration,
    /// It is the stored one.
    pub(super) same: bool,
    /// The stored one was asked for after this process got its own.
    pub(super) asked_since: bool,
}

/// What is left that can be relied on, after clocks and rounding.
pub(super) fn safe(left: Duration, granted: Duration) -> Duration {
    let safety = Duration::from_secs(1).min(granted / 20);
    left.saturating_sub(safety)
}

/// Whether to take it. If not, a new one is asked for.
pub(super) fn takes(cause: Cause, offer: Offer) -> bool {
    /// With less left than this a token is not worth a hand-over.
    const LEAST: Duration = Duration::from_secs(60);

    let Offer {
        left,
        granted,
        held,
    } = offer;
    let least = LEAST.min(granted / 4);
    let lasts = safe(left, granted);
    if lasts.is_zero() || lasts < least {
        return false;
    }
    let Some(held) = held else {
        return true;
    };
    match cause {
        // A 401 to that very token, or somebody who wants another.
        Cause::Rejected | Cause::Manual => !held.same && left > held.left,
        // Asked again, the server gave the same: to ask once more is in vain.
        _ if held.same => held.asked_since,
        // A sibling has been at it: then most of the life is left. A token
        // that merely ends a little later is due for a refresh as well.
        Cause::Ahead => left > held.left && left >= granted / 2,
        Cause::Cold | Cause::Expired => left > held.left,
    }
}

/// For how long a token that has just replaced a rejected one is not replaced
/// in its turn, rejected or not: a 401 may mean a missing scope, and then every
/// pod that starts would spend a request to find that out.
pub(super) fn put_off(cause: Cause, offer: Offer, heals: bool) -> Option<Duration> {
    const AT_LEAST: Duration = Duration::from_secs(60);

    let same = offer.held.is_some_and(|held| held.same);
    let age = offer.granted.saturating_sub(offer.left);
    let wait = AT_LEAST.saturating_sub(age);
    (cause == Cause::Rejected && same && heals && !wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn held(left: u64, same: bool, asked_since: bool) -> Option<Held> {
        Some(Held {
            left: s(left),
            same,
            asked_since,
        })
    }

    #[test]
    fn the_table_of_acceptances() {
        use Cause::{Ahead, Cold, Expired, Manual, Rejected};
        #[rustfmt::skip]
        let table = [
            (Cold,     3000, None, true),
            (Cold,       61, None, true),
            (Cold,       60, None, false),
            (Manual,   3000, None, true),
            (Expired,  3000, held(5, false, true), true),
            (Expired,  3000, held(3000, true, false), false),
            (Ahead,    3590, held(300, false, true), true),
            (Ahead,     330, held(300, false, true), false),
            (Ahead,     300, held(300, true, false), false),
            (Ahead,     300, held(300, true, true), true),
            (Rejected, 3500, held(3500, true, false), false),
            (Rejected, 3500, held(3500, true, true), false),
            (Rejected, 3000, held(3500, false, false), false),
            (Rejected, 3599, held(3500, false, true), true),
            (Manual,   3500, held(3500, true, true), false),
            (Manual,   3599, held(3500, false, true), true),
            // A second after the one before.
            (Manual,   3599, held(3598, false, true), true),
        ];
        for (cause, left, held, taken) in table {
            let offer = Offer {
                left: s(left),
                granted: s(3600),
                held,
            };
            assert_eq!(takes(cause, offer), taken, "{cause:?} {offer:?}");
        }
    }

    #[test]
    fn only_a_young_replacement_that_is_rejected_itself_stays() {
        let young = |cause, same, heals, left| {
            let offer = Offer {
                left: s(left),
                granted: s(3600),
                held: held(left, same, false),
            };
            put_off(cause, offer, heals)
        };
        assert_eq!(young(Cause::Rejected, true, true, 3590), Some(s(50)));
        assert_eq!(young(Cause::Rejected, true, true, 3540), None);
        assert_eq!(young(Cause::Rejected, true, false, 3590), None);
        assert_eq!(young(Cause::Rejected, false, true, 3590), None);
        assert_eq!(young(Cause::Manual, true, true, 3590), None);
    }

    #[test]
    fn short_lives_have_small_margins() {
        assert_eq!(safe(s(3600), s(3600)), s(3599));
        assert_eq!(safe(s(2), s(2)), Duration::from_millis(1900));
        let offer = |left| Offer {
            left: Duration::from_millis(left),
            granted: s(2),
            held: None,
        };
        assert!(takes(Cause::Cold, offer(600)));
        assert!(!takes(Cause::Cold, offer(599)));
    }
}
