//! Feature `metrics` off: functions without effect.

use std::time::{Duration, Instant, SystemTime};

use super::RequestOutcome;

/// A request that waits for its token.
pub(crate) struct WaitTimer;

impl WaitTimer {
    #[inline(always)]
    pub(crate) fn new(_now: impl FnOnce() -> Instant) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn finish(self, _outcome: RequestOutcome, _now: impl FnOnce() -> Instant) {}
}

#[inline(always)]
pub(crate) fn count_request(_outcome: RequestOutcome) {}

#[inline(always)]
pub(crate) fn token_request() {}

#[inline(always)]
pub(crate) fn token_landed(_issued: SystemTime, _life: Duration) {}

#[inline(always)]
pub(crate) fn token_replaced(_age: Duration) {}

#[inline(always)]
pub(super) fn refreshed(_cause: &'static str, _outcome: &'static str, _took: Option<Duration>) {}

#[inline(always)]
pub(super) fn rejected() {}
