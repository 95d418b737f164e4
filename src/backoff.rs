//! How long the token endpoint is left alone after a failure. Pure: chance is
//! an argument.

use std::time::Duration;

use crate::clock::doubled;
use crate::error::{Error, ErrorKind};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Returns the backoff after this error, the last of `failures` in a row.
/// `chance` in `0.0..=1.0` picks from half to all of a backoff that is spread.
///
/// | failure | the first | then | at most | spread |
/// |---|--:|--:|--:|---|
/// | 429 with `Retry-After` | that | that | 1 h | no |
/// | 429 | 60 s | doubled | 15 min | yes |
/// | the connection was never made | 0.5 s | doubled | 5 s | yes |
/// | another transient one | 1 s | 4 s, doubled | 30 s | from the second on |
/// | a permanent one | 60 s | doubled | 10 min | no |
///
/// A longer `Retry-After`, of 1 s to 1 h, is obeyed after any of them.
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
    let spread = |whole: Duration| whole.mul_f32(0.5 + chance / 2.0);
    let asked = error.retry_after().map(|asked| asked.clamp(SECOND, HOUR));
    let own = match (error.kind(), asked) {
        (ErrorKind::RateLimited, Some(asked)) => return asked,
        (ErrorKind::RateLimited, None) => spread(doubled(MINUTE, earlier, 15 * MINUTE)),
        _ if error.is_unsent() => spread(doubled(SECOND / 2, earlier, 5 * SECOND)),
        _ if error.is_transient() => match earlier {
            0 => SECOND,
            more => spread(doubled(4 * SECOND, more - 1, 30 * SECOND)),
        },
        _ => doubled(MINUTE, earlier, 10 * MINUTE),
    };
    asked.map_or(own, |asked| asked.max(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_backoffs() {
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
    fn chance_picks_from_half_to_all() {
        let error = Error::new(ErrorKind::Timeout, "");
        let backoffs = [-1.0, f32::NAN, 0.0, 0.5, 1.0].map(|chance| backoff(&error, 2, chance));
        assert_eq!(backoffs, [2, 2, 2, 3, 4].map(Duration::from_secs));
    }
}
