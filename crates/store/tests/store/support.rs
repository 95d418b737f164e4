//! What the tests share.

use std::time::{Duration, Instant};

use officernd_auth::AccessToken;
use officernd_auth::clock::{Clock, TokioClock};

pub(crate) fn now() -> Instant {
    TokioClock.now()
}

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What goes out on a request.
pub(crate) fn header(token: &AccessToken) -> &str {
    token.header_value().to_str().unwrap()
}
