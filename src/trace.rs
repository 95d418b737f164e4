//! Spans and events, with stable names. Callers hand over names and numbers:
//! this floor knows no token.

use std::time::Duration;

use tracing::{Span, debug, info_span, warn};

use crate::error::Error;

pub(crate) fn refresh_span(cause: &str) -> Span {
    // No parent: the request that happened to start it is not its owner.
    info_span!(parent: None, "officernd_auth.refresh", cause)
}

pub(crate) fn refreshed(cause: &str, generation: u64, expires_in: Duration, took: Duration) {
    debug!(
        name: "officernd_auth.refreshed",
        cause,
        outcome = "ok",
        generation,
        expires_in = expires_in.as_secs(),
        duration = took.as_secs_f64(),
        "token refreshed"
    );
}

pub(crate) fn refresh_failed(cause: &str, error: &Error, took: Duration) {
    warn!(
        name: "officernd_auth.refresh_failed",
        cause,
        outcome = error.kind().as_str(),
        %error,
        duration = took.as_secs_f64(),
        "token refresh failed"
    );
}

pub(crate) fn refresh_abandoned(cause: &str) {
    warn!(
        name: "officernd_auth.refresh_abandoned",
        cause,
        "a token refresh came back long overdue; its result is dropped"
    );
}

/// What goes on between a process and the store that it shares with others.
#[cfg(feature = "store")]
pub(crate) use self::shared::{store_back, store_entry_unusable, store_failed, token_shared};

#[cfg(feature = "store")]
mod shared {
    use std::time::Duration;

    use tracing::{debug, info, warn};

    use crate::error::Error;

    pub(crate) fn store_failed(operation: &str, error: &Error) {
        warn!(
            name: "officernd_auth.store_failed",
            operation,
            %error,
            "the token store failed; requests go on without it"
        );
    }

    pub(crate) fn store_back(operation: &str) {
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

    pub(crate) fn token_shared(cause: &str, expires_in: Duration) {
        debug!(
            name: "officernd_auth.token_shared",
            cause,
            expires_in = expires_in.as_secs(),
            "took a sibling's token"
        );
    }
}
