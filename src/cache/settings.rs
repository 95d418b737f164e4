//! What a cache is set up with.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::BackoffBounds;
use super::lifetime::RefreshPolicy;
use crate::clock::Clock;
use crate::settings as config;

/// The settings of one cache, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) policy: RefreshPolicy,
    pub(crate) fetch_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) keep_warm: bool,
    /// One of many caches: it fails for longer, and is not kept warm while no
    /// request asks for it.
    pub(crate) one_of_many: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Settings {
    pub(crate) fn new(settings: &config::Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            policy: RefreshPolicy::from(settings),
            fetch_timeout: settings.fetch_timeout,
            acquire_timeout: settings.acquire_timeout,
            keep_warm: settings.keep_warm,
            one_of_many: false,
            clock,
        }
    }

    /// The longest backoff after a permanent failure.
    pub(super) fn max_permanent_backoff(&self) -> Duration {
        match self.one_of_many {
            true => BackoffBounds::MAX_PERMANENT_SHARED,
            false => BackoffBounds::MAX_PERMANENT_SINGLE,
        }
    }
}
