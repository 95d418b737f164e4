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
    if error.is_unsent() {
        debug!(
            name: "officernd_auth.refresh_unsent",
            cause,
            outcome = error.kind().as_str(),
            %error,
            "token refresh put off"
        );
        return;
    }
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
