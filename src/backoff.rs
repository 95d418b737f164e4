//! The backoff after a failed fetch.

use std::time::Duration;

use crate::clock::doubled;
use crate::error::{Error, ErrorKind};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Returns the time until the next fetch after this error, the last of `failures` in a row. `chance`
/// in `0.0..=1.0` picks from half to all of a randomized backoff.
///
/// | failure | first | then | at most | randomized |
/// |---|--:|--:|--:|---|
/// | 429 with `Retry-After` | `Retry-After` | `Retry-After` | 1 h | no |
/// | other 429 | 60 s | doubled | 15 min | yes |
/// | the connection was never made | 0.5 s | doubled | 5 s | yes |
/// | other transient failure | 1 s | 4 s, doubled | 30 s | from the second on |
/// | permanent failure | 60 s | doubled | 10 min | no |
///
/// A longer `Retry-After`, limited to 1 s to 1 h, takes precedence after every failure.
///
/// ```
/// use officernd_auth::{Error, ErrorKind, backoff};
/// use std::time::Duration;
///
/// let error = Error::new(ErrorKind::Transport, "the endpoint answered 503");
/// assert_eq!(backoff(&error, 1, 0.7), Duration::from_secs(1));
/// assert_eq!(backoff(&error, 2, 1.0), Duration::from_secs(4));
/// ```
#[must_use]
pub fn backoff(error: &Error, failures: u32, chance: f32) -> Duration {
    let earlier = failures.saturating_sub(1);
    let chance = match chance.is_nan() {
        true => 0.0,
        false => chance.clamp(0.0, 1.0),
    };
    let randomized = |whole: Duration| whole.mul_f32(0.5 + chance / 2.0);
    let asked = error.retry_after().map(|asked| asked.clamp(SECOND, HOUR));
    let own = match (error.kind(), asked) {
        (ErrorKind::RateLimited, Some(asked)) => return asked,
        (ErrorKind::RateLimited, None) => randomized(doubled(MINUTE, earlier, 15 * MINUTE)),
        _ if error.is_unsent() => randomized(doubled(SECOND / 2, earlier, 5 * SECOND)),
        _ if error.is_transient() => match earlier {
            0 => SECOND,
            more => randomized(doubled(4 * SECOND, more - 1, 30 * SECOND)),
        },
        _ => doubled(MINUTE, earlier, 10 * MINUTE),
    };
    asked.map_or(own, |asked| asked.max(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoffs_by_failure() {
        let error = |kind| Error::new(kind, "");
        let asked = |kind, seconds| error(kind).with_retry_after(Duration::from_secs(seconds));
        #[rustfmt::skip]
        let table = [
            (error(ErrorKind::Transport), [1.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
            (error(ErrorKind::Malformed), [1.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
            (error(ErrorKind::Transport).mark_unsent(true), [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]),
            (error(ErrorKind::RateLimited), [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]),
            (error(ErrorKind::InvalidClient), [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]),
            (asked(ErrorKind::RateLimited, 7), [7.0; 6]),
            (asked(ErrorKind::RateLimited, 7200), [3600.0; 6]),
            (asked(ErrorKind::Transport, 20), [20.0, 20.0, 20.0, 20.0, 30.0, 30.0]),
            (asked(ErrorKind::Denied, 0), [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]),
        ];
        for (error, whole) in table {
            let backoffs = [1, 2, 3, 4, 5, 100].map(|failures| backoff(&error, failures, 1.0));
            assert_eq!(backoffs.map(|it| it.as_secs_f64()), whole, "{error:?}");
        }
    }

    #[test]
    fn chance_picks_from_half_to_all_of_a_backoff() {
        let error = Error::new(ErrorKind::Timeout, "");
        let backoffs = [-1.0, f32::NAN, 0.0, 0.5, 1.0].map(|chance| backoff(&error, 2, chance));
        assert_eq!(backoffs, [2, 2, 2, 3, 4].map(Duration::from_secs));
    }
}
