//! The spans and events of a refresh, a token request and a rejected token.

use std::time::Duration;

use http::{StatusCode, Uri};
use tracing::field::Empty;
use tracing::{Span, debug, info, info_span, warn};

use super::metrics;
use crate::error::{Error, WithCauses};

/// Emits the events of one refresh. Call its methods inside its [`span`](Self::span).
pub(crate) struct Refresh {
    pub(crate) cause: &'static str,
    /// Counted from 1 since the last success.
    pub(crate) attempt: u32,
}

impl Refresh {
    pub(crate) fn span(&self) -> Span {
        // No parent: the request that happened to start it is not its owner.
        info_span!(
            parent: None,
            "officernd_auth.refresh",
            cause = self.cause,
            attempt = self.attempt,
            outcome = Empty,
            duration = Empty,
            generation = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        )
    }

    /// Records how the fetch ended, in its span and in the metrics. `outcome` is `ok`, the kind of an
    /// error, `abandoned` or `lost`.
    fn end(&self, outcome: &'static str, took: Option<Duration>) {
        let span = Span::current();
        span.record("outcome", outcome);
        if let Some(took) = took {
            span.record("duration", took.as_secs_f64());
        }
        if outcome != "ok" {
            span.record("otel.status_code", "ERROR");
        }
        metrics::refreshed(self.cause, outcome, took);
    }

    pub(crate) fn done(&self, generation: u64, expires_in: Duration, took: Duration) {
        let Self { cause, attempt } = *self;
        Span::current().record("generation", generation);
        self.end("ok", Some(took));
        debug!(
            name: "officernd_auth.refreshed",
            cause,
            attempt,
            outcome = "ok",
            generation,
            expires_in = expires_in.as_secs(),
            duration = took.as_secs_f64(),
            "token refreshed"
        );
    }

    pub(crate) fn failed(&self, error: &Error, took: Duration) {
        let Self { cause, attempt } = *self;
        let outcome = error.kind().as_str();
        if error.is_not_attempted() {
            Span::current().record("outcome", outcome);
            debug!(
                name: "officernd_auth.refresh_deferred",
                cause,
                attempt,
                outcome,
                error = %WithCauses(error),
                "the token refresh is deferred; nothing was sent"
            );
            return;
        }
        Span::current().record("error.type", outcome);
        self.end(outcome, Some(took));
        warn!(
            name: "officernd_auth.refresh_failed",
            cause,
            attempt,
            outcome,
            error.type = outcome,
            error = %WithCauses(error),
            duration = took.as_secs_f64(),
            next_attempt_in = error.retry_after().map(|after| after.as_secs_f64()),
            "token refresh failed"
        );
    }

    /// Reports a first failure, after which the fetch tries once more.
    pub(crate) fn retried(&self, error: &Error, retry_in: Duration) {
        let Self { cause, attempt } = *self;
        info!(
            name: "officernd_auth.refresh_retried",
            cause,
            attempt,
            error.type = error.kind().as_str(),
            error = %WithCauses(error),
            retry_in = retry_in.as_secs_f64(),
            "the token request failed once and is tried again"
        );
    }

    pub(crate) fn abandoned(&self) {
        let Self { cause, attempt } = *self;
        self.end("abandoned", None);
        warn!(
            name: "officernd_auth.refresh_abandoned",
            cause,
            attempt,
            outcome = "abandoned",
            "a token refresh came back long overdue; its result is dropped"
        );
    }

    /// Reports that the task was dropped before it ended.
    pub(crate) fn lost(&self) {
        let Self { cause, attempt } = *self;
        self.end("lost", None);
        warn!(
            name: "officernd_auth.refresh_lost",
            cause,
            attempt,
            outcome = "lost",
            "a token refresh ended without a result: its runtime ended, or the provider panicked"
        );
    }
}

/// One request to the token endpoint: a client span with OpenTelemetry's
/// attributes for HTTP.
pub(crate) struct TokenRequest(pub(crate) Span);

impl TokenRequest {
    pub(crate) fn new(url: &Uri) -> Self {
        let scheme = url.scheme_str().unwrap_or_default();
        let host = url.host().unwrap_or_default();
        let port = match (url.port_u16(), scheme) {
            (Some(port), _) => port,
            (None, "http") => 80,
            (None, _) => 443,
        };
        let authority = url.authority().map_or("", |authority| authority.as_str());
        // Without the query: some servers take a key in it.
        let full = format!("{scheme}://{authority}{}", url.path());
        Self(info_span!(
            "officernd_auth.token_request",
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = "POST",
            http.response.status_code = Empty,
            url.full = %full,
            server.address = host,
            server.port = port,
            error.type = Empty,
        ))
    }

    /// Records the response, or that there was none.
    pub(crate) fn ended(&self, result: Result<StatusCode, &Error>) {
        if let Ok(status) = result {
            self.0.record("http.response.status_code", status.as_u16());
        }
        let error = match &result {
            Err(error) => error.kind().as_str(),
            Ok(status) if status.is_client_error() || status.is_server_error() => status.as_str(),
            Ok(_) => return,
        };
        self.0
            .record("error.type", error)
            .record("otel.status_code", "ERROR");
    }
}

/// A server answered 401 to the token that is in use.
pub(crate) fn rejected(generation: u64, age: Duration, replace_in: Duration) {
    metrics::rejected();
    debug!(
        name: "officernd_auth.token_rejected",
        generation,
        age = age.as_secs_f64(),
        replace_in = replace_in.as_secs_f64(),
        "a server rejected the token"
    );
}

/// `are_there`: the last ones are used.
pub(crate) fn credentials_unreadable(error: &(dyn std::error::Error + 'static), are_there: bool) {
    warn!(
        name: "officernd_auth.credentials_unreadable",
        error = %WithCauses(error),
        "the credentials cannot be loaded{}",
        if are_there { "; the last ones are used" } else { "" }
    );
}

pub(crate) fn scope_narrowed(asked: Option<&str>, granted: Option<&str>) {
    warn!(
        name: "officernd_auth.scope_narrowed",
        asked,
        granted,
        "the server granted less than was asked for"
    );
}

pub(crate) fn unknown_variable(variable: &str) {
    warn!(
        name: "officernd_auth.unknown_variable",
        variable,
        "an environment variable is not a setting and is ignored; is it misspelt?"
    );
}
