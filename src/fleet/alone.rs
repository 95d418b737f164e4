//! What holds while the store is away: when this process may send a token
//! request of its own. Pure; chance is an argument.

use std::time::{Duration, Instant};

use crate::clock::later;

/// The longest pause after a refusal.
const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);

/// When a process without a store may send.
#[derive(Debug, Default)]
pub(super) struct Alone {
    /// Answers of 429 in a row.
    refusals: u32,
    /// No request before this.
    refused_until: Option<Instant>,
    /// The generation of a token that still serves, and when a refresh ahead of
    /// its expiry goes on without the store.
    refresh_at: Option<(u64, Instant)>,
}

impl Alone {
    /// Until when the last refusal keeps this process from sending.
    pub(super) fn refused_until(&self, now: Instant) -> Option<Instant> {
        self.refused_until.filter(|until| now < *until)
    }

    /// The endpoint answered 429: the store would have kept us from asking.
    /// Waits for `per` or `retry_after`, doubled with each refusal, and up to
    /// three times that: the window counts refused requests, so processes that
    /// share nothing must spread out to get in at all.
    pub(super) fn refused(
        &mut self,
        per: Duration,
        retry_after: Option<Duration>,
        now: Instant,
        chance: f32,
    ) {
        let base = per.max(retry_after.unwrap_or_default());
        let doubled = base
            .saturating_mul(2u32.saturating_pow(self.refusals))
            .min(MAX_BACKOFF);
        let spread = doubled.mul_f32(1.0 + 2.0 * chance.clamp(0.0, 1.0));
        self.refusals = self.refusals.saturating_add(1);
        self.refused_until = Some(later(now, spread.min(MAX_BACKOFF)));
    }

    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// When a refresh ahead of the expiry of this token goes on without the
    /// store: after half of what was left when the store was first missed.
    pub(super) fn refresh_at(
        &mut self,
        generation: u64,
        ends_at: Instant,
        now: Instant,
    ) -> Instant {
        match self.refresh_at {
            Some((known, at)) if known == generation => at,
            _ => {
                let half = ends_at.saturating_duration_since(now) / 2;
                let at = later(now, half);
                self.refresh_at = Some((generation, at));
                at
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn refusals_in_a_row_double_the_pause_and_an_answer_ends_it() {
        let now = Instant::now();
        let mut alone = Alone::default();
        let mut pauses = Vec::new();
        for chance in [0.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.0, 0.0] {
            alone.refused(S(60), None, now, chance);
            pauses.push((alone.refused_until(now).unwrap() - now).as_secs());
        }
        assert_eq!(pauses, [60, 360, 240, 960, 2880, 3600, 3600, 3600]);
        assert_eq!(alone.refused_until(now + S(3600)), None);
        alone.answered();
        assert_eq!(alone.refused_until(now), None);
        alone.refused(S(60), Some(S(90)), now, 0.0);
        assert_eq!(alone.refused_until(now), Some(now + S(90)));
    }

    #[test]
    fn a_refresh_ahead_waits_for_half_of_what_is_left_of_each_token() {
        let now = Instant::now();
        let mut alone = Alone::default();
        let at = alone.refresh_at(1, now + S(900), now);
        assert_eq!(at, now + S(450));
        assert_eq!(alone.refresh_at(1, now + S(900), now + S(440)), at);
        assert_eq!(alone.refresh_at(2, now + S(100), now), now + S(50));
    }
}
