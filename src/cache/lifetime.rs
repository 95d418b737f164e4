//! When a token is refreshed, waited for, and expired: pure arithmetic.

use std::time::{Duration, Instant};

use crate::clock::{Age, Now, later};
use crate::error::{Error, ErrorKind};
use crate::settings::Settings;
use crate::token::AccessToken;

/// The settings that shape a token's life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshPolicy {
    /// How long before its expiry a token is refreshed, at most half its life.
    pub(crate) refresh_ahead: Duration,
    /// The largest share of the time until then by which it is refreshed earlier.
    pub(crate) jitter: f32,
    /// Requests wait for the new token during the last part of a life this long.
    pub(crate) expiry_margin: Duration,
}

impl From<&Settings> for RefreshPolicy {
    fn from(settings: &Settings) -> Self {
        Self {
            refresh_ahead: settings.refresh_ahead,
            jitter: settings.jitter,
            expiry_margin: settings.expiry_margin,
        }
    }
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self::from(&Settings::default())
    }
}

/// Where a token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freshness {
    /// Serves; nothing to do.
    Fresh,
    /// Serves; a refresh runs in the background.
    RefreshDue,
    /// Requests wait for the new token, for as long as the life allows.
    ExpiringSoon,
    /// Never sent.
    Expired,
}

/// The turning points of one token's life, as ages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) refresh_due: Duration,
    pub(crate) expiring_soon: Duration,
    /// From here requests go with the old token rather than wait.
    pub(crate) last_wait: Duration,
    pub(crate) expired: Duration,
}

impl Lifetime {
    /// Plans the life of a token granted for `life`. `chance` is in `0.0..1.0`
    /// and picks the jitter.
    ///
    /// A 3,600 s token, 15 min ahead and 10 % jitter: refreshed between 40:30
    /// and 45:00, waited for from 59:50, expired at 60:00.
    pub(crate) fn new(policy: &RefreshPolicy, life: Duration, chance: f32) -> Self {
        let margin = policy.expiry_margin.min(life / 10);
        let expiring_soon = life.saturating_sub(margin);
        let latest = life.saturating_sub(policy.refresh_ahead.min(life / 2));
        let early = latest.mul_f32((policy.jitter * chance).clamp(0.0, 1.0));
        Self {
            refresh_due: latest.saturating_sub(early).min(expiring_soon),
            expiring_soon,
            // A server that counts whole seconds refuses a token up to a second
            // early: the last second of a margin of 10 s is no time to wait.
            last_wait: life.saturating_sub(margin / 10),
            expired: life,
        }
    }

    /// Plans the life of a token that a server issues again while it lives.
    /// `left` is what was left of it before.
    ///
    /// A new life is planned like any other. A server that adds none hands out
    /// the same token until it expires, so asking again earlier is useless.
    pub(crate) fn reissued(
        policy: &RefreshPolicy,
        life: Duration,
        left: Duration,
        chance: f32,
    ) -> Self {
        /// Servers that count whole seconds round by as much.
        const ROUNDING: Duration = Duration::from_secs(1);

        if life > left.saturating_add(ROUNDING) {
            return Self::new(policy, life, chance);
        }
        Self {
            refresh_due: life,
            expiring_soon: life,
            last_wait: life,
            expired: life,
        }
    }

    pub(crate) fn freshness(&self, age: Duration) -> Freshness {
        if age >= self.expired {
            Freshness::Expired
        } else if age >= self.expiring_soon {
            Freshness::ExpiringSoon
        } else if age >= self.refresh_due {
            Freshness::RefreshDue
        } else {
            Freshness::Fresh
        }
    }
}

/// A token, its planned life and its age by both clocks.
#[derive(Debug)]
pub(crate) struct IssuedToken {
    pub(crate) token: AccessToken,
    pub(crate) lifetime: Lifetime,
    /// The fetch that brought it.
    pub(crate) fetch: u64,
    /// Counted from the start of the fetch.
    age: Age,
}

impl IssuedToken {
    /// Plans the life of a new token. `old` is the one that it replaces.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] if it expired on its way.
    pub(crate) fn replacing(
        old: Option<&Self>,
        policy: &RefreshPolicy,
        (token, age): (AccessToken, Age),
        (fetch, chance): (u64, f32),
        now: Now,
    ) -> Result<Self, Error> {
        let life = token.expires_in();
        let same = old.filter(|old| old.token.header_value() == token.header_value());
        let issued = Self {
            lifetime: match same {
                Some(old) => Lifetime::reissued(policy, life, old.left(now), chance),
                None => Lifetime::new(policy, life, chance),
            },
            token,
            fetch,
            age,
        };
        if issued.freshness(now) == Freshness::Expired {
            return Err(Error::new(
                ErrorKind::Malformed,
                "the new token had outlived its expires_in before it arrived",
            ));
        }
        Ok(issued)
    }

    pub(crate) fn age(&self, now: Now) -> Duration {
        self.age.at(now.monotonic, now.wall)
    }

    pub(crate) fn freshness(&self, now: Now) -> Freshness {
        self.lifetime.freshness(self.age(now))
    }

    /// The rest of its life.
    pub(crate) fn left(&self, now: Now) -> Duration {
        self.lifetime.expired.saturating_sub(self.age(now))
    }

    /// When it reaches this age; `now` if it has.
    pub(crate) fn reaches(&self, age: Duration, now: Now) -> Instant {
        later(now.monotonic, age.saturating_sub(self.age(now)))
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
    fn table_of_lifetimes() {
        let policy = RefreshPolicy::default();
        let ahead = |refresh_ahead| RefreshPolicy {
            refresh_ahead,
            ..policy
        };
        let margin = |expiry_margin| RefreshPolicy {
            expiry_margin,
            ..policy
        };
        #[rustfmt::skip]
        let table = [
            // policy, life, chance -> refresh_due, expiring_soon, last_wait
            (policy, s(3600), 0.0, s(2700), s(3590), s(3599)),
            (policy, s(3600), 1.0, s(2430), s(3590), s(3599)),
            (policy, s(3600), 0.5, s(2565), s(3590), s(3599)),
            (policy, s(300), 0.0, s(150), s(290), s(299)),
            (policy, s(60), 0.0, s(30), s(54), ms(59_400)),
            (policy, s(3), 0.0, ms(1500), ms(2700), ms(2970)),
            (policy, s(1), 1.0, ms(450), ms(900), ms(990)),
            (ahead(s(0)), s(3600), 0.0, s(3590), s(3590), s(3599)),
            (ahead(s(5)), s(3600), 0.0, s(3590), s(3590), s(3599)),
            (ahead(s(86_400)), s(3600), 0.0, s(1800), s(3590), s(3599)),
            (margin(s(0)), s(3600), 0.0, s(2700), s(3600), s(3600)),
            (margin(s(900)), s(3600), 1.0, s(2430), s(3240), s(3564)),
        ];
        for (policy, life, chance, refresh_due, expiring_soon, last_wait) in table {
            let planned = Lifetime::new(&policy, life, chance);
            let off = planned.refresh_due.abs_diff(refresh_due);
            assert!(off < ms(1), "{policy:?} {life:?} {planned:?}");
            assert_eq!(planned.expiring_soon, expiring_soon, "{policy:?} {life:?}");
            assert_eq!(planned.last_wait, last_wait, "{policy:?} {life:?}");
            assert_eq!(planned.expired, life);
        }
    }

    #[test]
    fn freshness_changes_at_the_turning_points() {
        let life = Lifetime::new(&RefreshPolicy::default(), s(3600), 0.0);
        let table = [
            (s(0), Freshness::Fresh),
            (ms(2_699_999), Freshness::Fresh),
            (s(2700), Freshness::RefreshDue),
            (s(3590), Freshness::ExpiringSoon),
            (ms(3_599_999), Freshness::ExpiringSoon),
            (s(3600), Freshness::Expired),
        ];
        for (age, freshness) in table {
            assert_eq!(life.freshness(age), freshness, "{age:?}");
        }
    }

    #[test]
    fn table_of_reissued_tokens() {
        let policy = RefreshPolicy::default();
        #[rustfmt::skip]
        let table = [
            // left before, life now -> refresh_due
            (s(900), s(3600), s(2700)),
            (s(300), s(600), s(300)),
            (s(300), s(300), s(300)),
            (s(300), s(301), s(301)),
            (s(300), s(299), s(299)),
        ];
        for (left, life, refresh_due) in table {
            let planned = Lifetime::reissued(&policy, life, left, 0.0);
            assert_eq!(planned.refresh_due, refresh_due, "{left:?} {life:?}");
            assert_eq!(planned.expired, life);
        }
    }

    proptest::proptest! {
        #[test]
        fn turning_points_are_in_order_whatever_the_settings(
            ahead in 0u64..100_000_000, margin in 0u64..100_000_000, life in 1u64..86_400_000,
            jitter in 0f32..=1.0, chance in 0f32..1.0,
        ) {
            let policy = RefreshPolicy { refresh_ahead: ms(ahead), expiry_margin: ms(margin), jitter };
            let planned = Lifetime::new(&policy, ms(life), chance);
            let latest = Lifetime::new(&policy, ms(life), 0.0);
            proptest::prop_assert!(planned.refresh_due <= latest.refresh_due);
            proptest::prop_assert!(planned.refresh_due <= planned.expiring_soon);
            proptest::prop_assert!(planned.expiring_soon <= planned.last_wait);
            proptest::prop_assert!(planned.last_wait <= planned.expired);
        }
    }
}
