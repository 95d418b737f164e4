//! Spans, events and metrics with stable names. [The guide](crate::guide::observability)
//! lists them.
//!
//! This module gets names and numbers, never a token.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
mod names;
#[cfg(feature = "store")]
mod store;

use std::time::Duration;

use tracing::field::Empty;
use tracing::{Span, debug, info_span, warn};

#[cfg(feature = "metrics")]
pub use self::metrics::describe as describe_metrics;
#[cfg(feature = "store")]
pub(crate) use self::metrics::store_served;
pub(crate) use self::metrics::{Waiter, requested, token_landed, token_replaced, token_request};
use self::names::{event, span};
#[cfg(feature = "redis")]
pub(crate) use self::store::store_evicts;
#[cfg(feature = "store")]
pub(crate) use self::store::{
    store_back, store_clock_differs, store_entry_unusable, store_failed, token_shared,
};
use crate::error::Error;

/// Emits the events of one refresh of a token, from its start to its end.
pub(crate) struct Refresh {
    pub(crate) cause: &'static str,
    /// Counted from 1 since the last success.
    pub(crate) attempt: u32,
}

/// What becomes of a request that the layer is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Requested {
    /// The token was at hand.
    Hit,
    /// It waited, and got a token.
    Waited,
    /// It waited, and got none: it was not sent.
    Failed,
    /// It goes to an origin that may not see the token: it was not sent.
    Refused,
    /// It went out as it was, by the policy.
    Passed,
}

impl Refresh {
    pub(crate) fn span(&self) -> Span {
        // No parent: the request that happened to start it is not its owner.
        info_span!(
            parent: None,
            span::REFRESH,
            cause = self.cause,
            attempt = self.attempt,
            outcome = Empty,
            duration = Empty,
            generation = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        )
    }

    /// Inside its span.
    pub(crate) fn done(&self, generation: u64, expires_in: Duration, took: Duration) {
        let Self { cause, attempt } = *self;
        let duration = took.as_secs_f64();
        Span::current()
            .record("outcome", "ok")
            .record("duration", duration)
            .record("generation", generation);
        metrics::refreshed(cause, "ok", Some(took));
        debug!(
            name: event::REFRESHED,
            cause,
            attempt,
            outcome = "ok",
            generation,
            expires_in = expires_in.as_secs(),
            duration,
            "token refreshed"
        );
    }

    pub(crate) fn failed(&self, error: &Error, took: Duration) {
        let Self { cause, attempt } = *self;
        let duration = took.as_secs_f64();
        let outcome = error.kind().as_str();
        if error.is_not_attempted() {
            Span::current().record("outcome", outcome);
            debug!(
                name: event::REFRESH_PUT_OFF,
                cause,
                attempt,
                outcome,
                %error,
                "the token refresh is put off; nothing was sent"
            );
            return;
        }
        Span::current()
            .record("outcome", outcome)
            .record("duration", duration)
            .record("error.type", outcome)
            .record("otel.status_code", "ERROR");
        metrics::refreshed(cause, outcome, Some(took));
        warn!(
            name: event::REFRESH_FAILED,
            cause,
            attempt,
            outcome,
            error.type = outcome,
            %error,
            duration,
            retry_after = error.retry_after().map(|after| after.as_secs_f64()),
            "token refresh failed"
        );
    }

    pub(crate) fn abandoned(&self) {
        let Self { cause, attempt } = *self;
        Span::current()
            .record("outcome", "abandoned")
            .record("otel.status_code", "ERROR");
        metrics::refreshed(cause, "abandoned", None);
        warn!(
            name: event::REFRESH_ABANDONED,
            cause,
            attempt,
            outcome = "abandoned",
            "a token refresh came back long overdue; its result is dropped"
        );
    }

    /// Its task was dropped before it ended.
    pub(crate) fn lost(&self) {
        let Self { cause, attempt } = *self;
        metrics::refreshed(cause, "lost", None);
        warn!(
            name: event::REFRESH_LOST,
            cause,
            attempt,
            outcome = "lost",
            "a token refresh ended without a result: its runtime ended, or the provider panicked"
        );
    }
}

/// A server answered 401 to the token that is in use.
pub(crate) fn rejected(generation: u64, heal_in: Duration) {
    metrics::rejected();
    debug!(
        name: event::TOKEN_REJECTED,
        generation,
        heal_in = heal_in.as_secs_f64(),
        "a server rejected the token"
    );
}

pub(crate) fn credentials_unreadable(error: &dyn std::error::Error) {
    warn!(
        name: event::SECRET_UNREADABLE,
        error = %error,
        "the credentials cannot be loaded again; the last ones are used"
    );
}

pub(crate) fn scope_narrowed(asked: Option<&str>, granted: Option<&str>) {
    warn!(
        name: event::SCOPE_NARROWED,
        asked,
        granted,
        "the server granted less than was asked for"
    );
}
