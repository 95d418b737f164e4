//! How long nothing is sent after a failed token request: by the whole fleet, or by a process without its store.
//! Pure; time and chance are arguments.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::store::whole_millis;
use crate::clock::{doubled, later};
use crate::error::{Error, ErrorKind};

/// Failures this far apart are not in a row.
const FAILURE_MEMORY: Duration = Duration::from_secs(60);
/// The longest pause after any failure.
const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// The longest pause of a process without a store after a failure that may pass and is no 429.
const MAX_FAILED: Duration = Duration::from_secs(60);

/// A token request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// In a row, this one included.
    failures: u32,
    /// How long no process asks the endpoint again.
    hold: Duration,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FailureJson<'a> {
    kind: &'a str,
    failures: u32,
    hold: u64,
}

impl Failure {
    /// What other processes should know of this error; `None` if it says
    /// nothing about the endpoint. `earlier` is the last failure and how long
    /// ago it was sealed; `chance` in `0.0..1.0` spreads processes.
    pub(super) fn after(error: &Error, earlier: Option<(Self, Duration)>) -> Option<Self> {
        kind(error.kind().as_str())?;
        if error.is_not_attempted() {
            return None;
        }
        let in_a_row = |(failure, age): &(Self, Duration)| *age < failure.life();
        let earlier = earlier
            .filter(in_a_row)
            .map_or(0, |(failure, _)| failure.failures);
        let doubled = |base, most| {
            doubled(
                Duration::from_secs(base),
                earlier,
                Duration::from_secs(most),
            )
        };
        let own = match error.kind() {
            ErrorKind::RateLimited => doubled(60, 900),
            _ if error.is_transient() => doubled(1, 30),
            _ => doubled(60, 600),
        };
        let hold = match error.retry_after() {
            Some(after) if error.kind() == ErrorKind::RateLimited => after,
            Some(after) => after.max(own),
            None => own,
        };
        Some(Self {
            kind: error.kind(),
            failures: earlier.saturating_add(1),
            hold: hold.clamp(Duration::from_secs(1), MAX_BACKOFF),
        })
    }

    /// How long the store keeps it: later failures know of it.
    pub(super) fn life(&self) -> Duration {
        self.hold.saturating_add(FAILURE_MEMORY)
    }

    /// How long it still holds.
    pub(super) fn left(&self, age: Duration) -> Duration {
        self.hold.saturating_sub(age)
    }

    /// The error for a process that did not ask.
    pub(super) fn error(&self, left: Duration) -> Error {
        let kind = self.kind;
        let message = format!("another process's token request has just failed ({kind})");
        Error::new(kind, message).with_retry_after(left)
    }

    pub(super) fn to_json(self) -> FailureJson<'static> {
        FailureJson {
            kind: self.kind.as_str(),
            failures: self.failures,
            hold: whole_millis(self.hold),
        }
    }

    pub(super) fn from_json(json: &FailureJson<'_>) -> Option<Self> {
        Some(Self {
            kind: kind(json.kind)?,
            failures: json.failures,
            hold: Duration::from_millis(json.hold).min(MAX_BACKOFF),
        })
    }
}

/// The kinds of answer that a token endpoint can give.
fn kind(name: &str) -> Option<ErrorKind> {
    const KINDS: [ErrorKind; 7] = [
        ErrorKind::InvalidClient,
        ErrorKind::InvalidScope,
        ErrorKind::Denied,
        ErrorKind::RateLimited,
        ErrorKind::Timeout,
        ErrorKind::Transport,
        ErrorKind::Malformed,
    ];
    KINDS.into_iter().find(|kind| kind.as_str() == name)
}

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
        let own = per.saturating_mul(3u32.saturating_pow(self.refusals));
        let own = own.min(MAX_BACKOFF / 4);
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
        let own = doubled(Duration::from_secs(1), self.failures, MAX_FAILED);
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

    #[test]
    fn the_more_failures_in_a_row_the_longer_the_pause() {
        let holds = |error: &Error| {
            let mut earlier = None;
            let mut holds = Vec::new();
            for _ in 0..7 {
                let failure = Failure::after(error, earlier).unwrap();
                holds.push(failure.hold.as_secs());
                earlier = Some((failure, failure.hold));
            }
            holds
        };
        let down = Error::new(ErrorKind::Transport, "");
        assert_eq!(holds(&down), [1, 2, 4, 8, 16, 30, 30]);
        let limited = Error::new(ErrorKind::RateLimited, "");
        assert_eq!(holds(&limited), [60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(holds(&limited.with_retry_after(S(20)))[..2], [20, 20]);
        let wrong = Error::new(ErrorKind::InvalidClient, "");
        assert_eq!(holds(&wrong)[..5], [60, 120, 240, 480, 600]);
        assert_eq!(holds(&down.clone().with_retry_after(S(20)))[..2], [20, 20]);
        let last = Failure::after(&down, None).unwrap();
        let after_a_while = Failure::after(&down, Some((last, S(62)))).unwrap();
        assert_eq!(after_a_while.failures, 1);
    }

    #[test]
    fn errors_that_say_nothing_about_the_endpoint_are_not_shared() {
        let not_attempted = Error::new(ErrorKind::RateLimited, "").not_attempted();
        for error in [
            not_attempted,
            Error::new(ErrorKind::Store, ""),
            Error::new(ErrorKind::Runtime, ""),
        ] {
            assert!(Failure::after(&error, None).is_none());
        }
    }
}
