//! A token request that failed: how long no process repeats it. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Failures this far apart are not in a row.
const FAILURE_MEMORY: Duration = Duration::from_secs(60);
/// The longest pause after a failure.
const MAX_FAILURE_HOLD: Duration = Duration::from_secs(60 * 60);

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
        let doublings = 2u32.saturating_pow(earlier);
        let doubled = |base: u64, most: u64| {
            Duration::from_secs(base)
                .saturating_mul(doublings)
                .min(Duration::from_secs(most))
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
            hold: hold.clamp(Duration::from_secs(1), MAX_FAILURE_HOLD),
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
            hold: u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn from_json(json: &FailureJson<'_>) -> Option<Self> {
        Some(Self {
            kind: kind(json.kind)?,
            failures: json.failures,
            hold: Duration::from_millis(json.hold).min(MAX_FAILURE_HOLD),
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

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
