//! What goes on between a process and the store that it shares with others.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::metrics;
use super::names::event;
use crate::error::Error;

pub(crate) fn store_failed(operation: &'static str, error: &Error) {
    metrics::store_failed(operation);
    warn!(
        name: event::STORE_FAILED,
        operation,
        %error,
        "the token store failed; requests go on without it"
    );
}

pub(crate) fn store_back(operation: &'static str) {
    info!(
        name: event::STORE_BACK,
        operation,
        "the token store works again"
    );
}

pub(crate) fn store_entry_unusable() {
    warn!(
        name: event::STORE_ENTRY_UNUSABLE,
        "what the token store holds here was not sealed with this secret, or is garbled; \
         it counts as nothing"
    );
}

pub(crate) fn token_shared(cause: &'static str, expires_in: Duration) {
    debug!(
        name: event::TOKEN_SHARED,
        cause,
        expires_in = expires_in.as_secs(),
        "took a sibling's token"
    );
}
