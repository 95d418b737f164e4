//! The spans and events of a refresh, a token request and a rejected token.

use std::time::Duration;

use http::{StatusCode, Uri};
use tracing::field::Empty;
use tracing::{Span, debug, info, info_span, warn};

use super::metrics;
use crate::error::{Error, WithCauses};

/// Emits the events of one refresh. Its methods must be called inside its [`span`](Self::span).
pub(crate) struct Refresh {
    pub(crate) cause: &'static str,
    /// Counted from 1 since the last success.
    pub(crate) attempt: u32,
}

impl Refresh {
    pub(crate) fn span(&self) -> Span {
        // No parent: the refresh outlives the request that started it.
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

    /// Records the end of the fetch in its span and in the metrics. `outcome` is `ok`, the kind of an
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
        Span::current().record("generation", generation);
        self.end("ok", Some(took));
        debug!(
            name: "officernd_auth.refreshed",
            cause = self.cause,
            attempt = self.attempt,
            outcome = "ok",
            generation,
            expires_in = expires_in.as_secs(),
            duration = took.as_secs_f64(),
            "token refreshed"
        );
    }

    pub(crate) fn failed(&self, error: &Error, took: Duration) {
        let outcome = error.kind().as_str();
        if error.is_not_attempted() {
            Span::current().record("outcome", outcome);
            debug!(
                name: "officernd_auth.refresh_deferred",
                cause = self.cause,
                attempt = self.attempt,
                outcome,
                error = %WithCauses(error),
                "token refresh deferred; nothing was sent"
            );
            return;
        }
        Span::current().record("error.type", outcome);
        self.end(outcome, Some(took));
        warn!(
            name: "officernd_auth.refresh_failed",
            cause = self.cause,
            attempt = self.attempt,
            outcome,
            error.type = outcome,
            error = %WithCauses(error),
            duration = took.as_secs_f64(),
            next_attempt_in = error.retry_after().map(|after| after.as_secs_f64()),
            "token refresh failed"
        );
    }

    /// Reports a first failure, after which the fetch makes a second attempt.
    pub(crate) fn retried(&self, error: &Error, retry_in: Duration) {
        info!(
            name: "officernd_auth.refresh_retried",
            cause = self.cause,
            attempt = self.attempt,
            error.type = error.kind().as_str(),
            error = %WithCauses(error),
            retry_in = retry_in.as_secs_f64(),
            "token request failed once and is repeated"
        );
    }

    pub(crate) fn abandoned(&self) {
        self.end("abandoned", None);
        warn!(
            name: "officernd_auth.refresh_abandoned",
            cause = self.cause,
            attempt = self.attempt,
            outcome = "abandoned",
            "a token refresh ended after another had been started in its place; its result is dropped"
        );
    }

    /// Reports that the task of the fetch was dropped, or panicked.
    pub(crate) fn lost(&self) {
        self.end("lost", None);
        warn!(
            name: "officernd_auth.refresh_lost",
            cause = self.cause,
            attempt = self.attempt,
            outcome = "lost",
            "a token refresh ended without a result: its runtime was dropped, or the provider panicked"
        );
    }
}

/// Returns the client span of a token request, with OpenTelemetry's attributes for HTTP.
pub(crate) fn token_request_span(url: &Uri) -> Span {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let default_port = if scheme == "http" { 80 } else { 443 };
    // Without the query, which may contain a key.
    let full = format!("{scheme}://{authority}{}", url.path());
    info_span!(
        "officernd_auth.token_request",
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = "POST",
        http.response.status_code = Empty,
        url.full = %full,
        server.address = url.host().unwrap_or_default(),
        server.port = url.port_u16().unwrap_or(default_port),
        error.type = Empty,
    )
}

/// Records the response to a token request, or its error, in the span.
pub(crate) fn token_request_ended(span: &Span, result: Result<StatusCode, &Error>) {
    if let Ok(status) = result {
        span.record("http.response.status_code", status.as_u16());
    }
    let error = match &result {
        Err(error) => error.kind().as_str(),
        Ok(status) if status.is_client_error() || status.is_server_error() => status.as_str(),
        Ok(_) => return,
    };
    span.record("error.type", error)
        .record("otel.status_code", "ERROR");
}

/// Reports a 401 to the token in use.
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

/// Reports that credentials cannot be loaded. `last` means that the last credentials are used.
pub(crate) fn credentials_unreadable(error: &(dyn std::error::Error + 'static), last: bool) {
    warn!(
        name: "officernd_auth.credentials_unreadable",
        error = %WithCauses(error),
        "the credentials cannot be loaded{}",
        if last { "; the last ones are used" } else { "" }
    );
}

pub(crate) fn scope_narrowed(asked: Option<&str>, granted: Option<&str>) {
    warn!(
        name: "officernd_auth.scope_narrowed",
        asked,
        granted,
        "the server granted fewer scopes than requested"
    );
}

pub(crate) fn unknown_variable(variable: &str) {
    warn!(
        name: "officernd_auth.unknown_variable",
        variable,
        "an unknown environment variable is ignored; check its spelling"
    );
}
