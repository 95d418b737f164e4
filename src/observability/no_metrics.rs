//! Without the feature `metrics`: functions without effect.

use std::time::{Duration, Instant, SystemTime};

pub(crate) struct WaitTimer;

impl WaitTimer {
    pub(crate) fn new(_now: Instant) -> Self {
        Self
    }

    pub(crate) fn finish(self, _outcome: &'static str, _now: Instant) {}
}

pub(crate) fn count_hit() {}
pub(crate) fn count_request(_outcome: &'static str) {}
pub(crate) fn token_request() {}
pub(crate) fn token_landed(_issued: SystemTime, _life: Duration) {}
pub(crate) fn token_replaced(_age: Duration) {}
pub(super) fn refreshed(_cause: &'static str, _outcome: &'static str, _took: Option<Duration>) {}
pub(super) fn rejected() {}
