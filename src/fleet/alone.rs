//! What holds while the store is away: when this process may send a token
//! request of its own. Pure; chance is an argument.

use std::time::{Duration, Instant};

use crate::clock::later;
use crate::error::{Error, ErrorKind};

/// The longest pause after a refusal.
const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// The longest pause after another failure that may pass.
const MAX_FAILED: Duration = Duration::from_secs(60);

/// When a process without a store may send.
#[derive(Debug, Default)]
pub(super) struct Alone {
    /// Answers of 429 in a row.
    refusals: u32,
    /// Other failures in a row.
    failures: u32,
    pause: Option<Pause>,
    /// The generation of a token that still serves, and when a refresh ahead of
    /// its expiry goes on without the store.
    refresh_at: Option<(u64, Instant)>,
}

/// No token request is sent before its end, but the store may have a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) until: Instant,
    /// What the last token request failed with.
    pub(super) kind: ErrorKind,
}

impl Alone {
    /// What the last failure leaves to wait.
    pub(super) fn pause(&self, now: Instant) -> Option<Pause> {
        self.pause.filter(|pause| now < pause.until)
    }

    /// The endpoint answered 429: the store would have kept us from asking.
    /// Waits for `per`, tripled with each refusal, or for `retry_after` if that
    /// is longer, and for up to four times that: the window counts refused
    /// requests, so processes that share nothing must spread out to get in.
    pub(super) fn refused(
        &mut self,
        per: Duration,
        retry_after: Option<Duration>,
        now: Instant,
        chance: f32,
    ) {
        // Doubling is too slow for 200 processes, a narrower spread for 20.
        let own = grown(per, 3, self.refusals, MAX_BACKOFF / 4);
        let base = own.max(retry_after.unwrap_or_default());
        let spread = base.mul_f32(1.0 + 3.0 * chance.clamp(0.0, 1.0));
        self.refusals = self.refusals.saturating_add(1);
        let until = later(now, spread.min(MAX_BACKOFF));
        let kind = ErrorKind::RateLimited;
        self.pause = Some(Pause { until, kind });
    }

    /// A token request failed otherwise. Waits for up to 1 s, doubled with each
    /// failure up to 60 s, or for `retry_after` if that is longer.
    pub(super) fn failed(&mut self, error: &Error, now: Instant, chance: f32) {
        let own = grown(Duration::from_secs(1), 2, self.failures, MAX_FAILED);
        let own = own.mul_f32(chance.clamp(0.0, 1.0));
        let wait = own.max(error.retry_after().unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        let until = later(now, wait.min(MAX_BACKOFF));
        let kind = error.kind();
        self.pause = Some(Pause { until, kind });
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

/// `base`, multiplied `times` times, at most `most`.
fn grown(base: Duration, factor: u32, times: u32, most: Duration) -> Duration {
    base.saturating_mul(factor.saturating_pow(times)).min(most)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn left(alone: &Alone, now: Instant) -> Option<Duration> {
        alone.pause(now).map(|pause| pause.until - now)
    }

    #[test]
    fn refusals_in_a_row_triple_the_pause_and_an_answer_ends_it() {
        let now = Instant::now();
        let mut alone = Alone::default();
        let mut pauses = Vec::new();
        for chance in [0.0, 1.0, 0.0, 0.5, 1.0, 0.0] {
            alone.refused(S(60), None, now, chance);
            pauses.push(left(&alone, now).unwrap().as_secs());
        }
        assert_eq!(pauses, [60, 720, 540, 2250, 3600, 900]);
        assert_eq!(alone.pause(now + S(3600)), None);
        alone.answered();
        assert_eq!(alone.pause(now), None);
        alone.refused(S(60), Some(S(90)), now, 0.0);
        assert_eq!(left(&alone, now), Some(S(90)));
    }

    #[test]
    fn other_failures_in_a_row_double_the_pause_up_to_a_minute() {
        let now = Instant::now();
        let mut alone = Alone::default();
        let down = Error::new(ErrorKind::Transport, "");
        let mut pauses = Vec::new();
        for chance in [1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.0] {
            alone.failed(&down, now, chance);
            pauses.push(left(&alone, now).map_or(0, |left| left.as_secs()));
        }
        assert_eq!(pauses, [1, 2, 2, 8, 16, 32, 60, 0]);
        alone.failed(&down.with_retry_after(S(90)), now, 0.0);
        assert_eq!(left(&alone, now), Some(S(90)));
        assert_eq!(alone.pause(now).unwrap().kind, ErrorKind::Transport);
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
