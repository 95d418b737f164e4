//! When a token is refreshed, waited for, and dead: pure arithmetic.

use std::time::Duration;

/// The settings that shape a token's life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) refresh_ahead: Duration,
    pub(crate) jitter: f32,
    pub(crate) expiry_margin: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            refresh_ahead: Duration::from_secs(5 * 60),
            jitter: 0.1,
            expiry_margin: Duration::from_secs(10),
        }
    }
}

/// What an age means for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Serves; nothing to do.
    Fresh,
    /// Serves; a new one is fetched in the background.
    Ahead,
    /// Requests wait for the new one, as long as the life allows.
    Margin,
    /// No server takes it any more.
    Dead,
}

/// The turning points of one token's life, as ages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    /// From here a refresh runs in the background.
    pub(crate) refresh_at: Duration,
    /// From here requests wait for the new token …
    pub(crate) margin_at: Duration,
    /// … but not beyond this: then they go with the old one while it lives.
    pub(crate) last_wait: Duration,
    /// From here the token is dead.
    pub(crate) ends_at: Duration,
}

impl Life {
    /// Plans the life of a token that was granted for `life`. `chance` is in
    /// `0.0..1.0` and picks the jitter.
    ///
    /// A 3,600 s token, 5 min ahead and 10 % jitter: refreshed between 49:30
    /// and 55:00, waited for from 59:50, dead at 60:00.
    pub(crate) fn new(plan: &Plan, life: Duration, chance: f32) -> Self {
        let margin = plan.expiry_margin.min(life / 10);
        let margin_at = life - margin;
        let latest = life - plan.refresh_ahead.min(life / 2);
        let early = latest.mul_f32((plan.jitter * chance).clamp(0.0, 1.0));
        Self {
            refresh_at: latest.saturating_sub(early).min(margin_at),
            margin_at,
            // Servers that count whole seconds refuse a token up to a second
            // early: of a margin of 10 s the last one is no time to wait.
            last_wait: life - margin / 10,
            ends_at: life,
        }
    }

    /// The life of a token that the server handed out again: it makes no new
    /// one while this one lives, so to ask before the end is to ask in vain.
    pub(crate) fn reissued(life: Duration) -> Self {
        Self {
            refresh_at: life,
            margin_at: life,
            last_wait: life,
            ends_at: life,
        }
    }

    pub(crate) fn stage(&self, age: Duration) -> Stage {
        if age < self.refresh_at {
            Stage::Fresh
        } else if age < self.margin_at {
            Stage::Ahead
        } else if age < self.ends_at {
            Stage::Margin
        } else {
            Stage::Dead
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_table_of_lives() {
        let plan = Plan::default();
        let ahead = |refresh_ahead| Plan {
            refresh_ahead,
            ..plan
        };
        let margin = |expiry_margin| Plan {
            expiry_margin,
            ..plan
        };
        #[rustfmt::skip]
        let table = [
            // plan, life, chance → refresh_at, margin_at, last_wait
            (plan, s(3600), 0.0, s(3300), s(3590), s(3599)),
            (plan, s(3600), 1.0, s(2970), s(3590), s(3599)),
            (plan, s(3600), 0.5, s(3135), s(3590), s(3599)),
            (plan, s(300), 0.0, s(150), s(290), s(299)),
            (plan, s(60), 0.0, s(30), s(54), ms(59_400)),
            (plan, s(3), 0.0, ms(1500), ms(2700), ms(2970)),
            (plan, s(1), 1.0, ms(450), ms(900), ms(990)),
            (ahead(s(0)), s(3600), 0.0, s(3590), s(3590), s(3599)),
            (ahead(s(5)), s(3600), 0.0, s(3590), s(3590), s(3599)),
            (ahead(s(86_400)), s(3600), 0.0, s(1800), s(3590), s(3599)),
            (margin(s(0)), s(3600), 0.0, s(3300), s(3600), s(3600)),
            (margin(s(900)), s(3600), 0.0, s(3240), s(3240), s(3564)),
        ];
        for (plan, life, chance, refresh_at, margin_at, last_wait) in table {
            let planned = Life::new(&plan, life, chance);
            let close = |a: Duration, b: Duration| a.abs_diff(b) < ms(1);
            assert!(
                close(planned.refresh_at, refresh_at),
                "{plan:?} {life:?} {planned:?}"
            );
            assert_eq!(planned.margin_at, margin_at, "{plan:?} {life:?}");
            assert_eq!(planned.last_wait, last_wait, "{plan:?} {life:?}");
            assert_eq!(planned.ends_at, life);
        }
    }

    #[test]
    fn the_stages_follow_each_other_at_their_turning_points() {
        let life = Life::new(&Plan::default(), s(3600), 0.0);
        let table = [
            (s(0), Stage::Fresh),
            (ms(3_299_999), Stage::Fresh),
            (s(3300), Stage::Ahead),
            (s(3590), Stage::Margin),
            (ms(3_599_999), Stage::Margin),
            (s(3600), Stage::Dead),
        ];
        for (age, stage) in table {
            assert_eq!(life.stage(age), stage, "{age:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_turning_points_are_in_order_whatever_the_settings(
            ahead in 0u64..100_000_000, margin in 0u64..100_000_000, life in 1u64..86_400_000,
            jitter in 0f32..=1.0, chance in 0f32..1.0,
        ) {
            let plan = Plan { refresh_ahead: ms(ahead), expiry_margin: ms(margin), jitter };
            let planned = Life::new(&plan, ms(life), chance);
            let latest = Life::new(&plan, ms(life), 0.0);
            proptest::prop_assert!(planned.refresh_at <= latest.refresh_at);
            proptest::prop_assert!(planned.refresh_at <= planned.margin_at);
            proptest::prop_assert!(planned.margin_at <= planned.last_wait);
            proptest::prop_assert!(planned.last_wait <= planned.ends_at);
        }
    }
}
