//! Events about the token store.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::metrics;
use crate::error::{Error, WithCauses};

pub(crate) fn store_failed(operation: &'static str, error: &Error) {
    metrics::store_failed(operation);
    warn!(
        name: "officernd_auth.store_failed",
        operation,
        error = %WithCauses(error),
        "the token store failed; requests go on without it"
    );
}

pub(crate) fn store_back(operation: &'static str) {
    info!(
        name: "officernd_auth.store_back",
        operation,
        "the token store works again"
    );
}

pub(crate) fn store_entry_unusable() {
    warn!(
        name: "officernd_auth.store_entry_unusable",
        "what the token store holds here was not sealed with this secret, or is garbled; \
         it counts as nothing"
    );
}

pub(crate) fn store_clock_differs(by: Duration) {
    warn!(
        name: "officernd_auth.store_clock_differs",
        by = by.as_secs(),
        "what the token store holds here is over by this host's clock, though not by the \
         store's: the clocks of two hosts differ; it counts as nothing"
    );
}

pub(crate) fn token_shared(cause: &'static str, expires_in: Duration) {
    debug!(
        name: "officernd_auth.token_shared",
        cause,
        expires_in = expires_in.as_secs(),
        "took the token from the store"
    );
}
