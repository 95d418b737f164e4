//! Feature `metrics` on: counters, gauges and histograms for the recorder that
//! is installed. Each is looked up when it is recorded, so that a recorder may come
//! after the layer.

use std::time::{Duration, Instant, SystemTime};

use ::metrics::{Unit, counter, gauge, histogram};

use super::RequestOutcome;

/// Describes each metric, with help text and unit, to the installed recorder of
/// `metrics`. Call it once, after the recorder is installed. The metrics work
/// without it.
///
/// The names are listed in `docs/observability.md`.
///
/// ```
/// // ... install an exporter, such as metrics-exporter-prometheus, then:
/// officernd_auth::observability::describe_metrics();
/// ```
pub fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_counter!(
        "officernd_auth_requests_total",
        Unit::Count,
        "Requests that the layer was given, by how they got their token."
    );
    describe_gauge!(
        "officernd_auth_waiting_requests",
        Unit::Count,
        "Requests that wait for a token now."
    );
    describe_histogram!(
        "officernd_auth_wait_seconds",
        Unit::Seconds,
        "How long requests waited for a token that was not at hand."
    );
    describe_counter!(
        "officernd_auth_refreshes_total",
        Unit::Count,
        "Token fetches that ended, by cause and outcome."
    );
    describe_histogram!(
        "officernd_auth_refresh_duration_seconds",
        Unit::Seconds,
        "How long token fetches took, with the wait for the rate limit."
    );
    describe_counter!(
        "officernd_auth_token_requests_total",
        Unit::Count,
        "Requests sent to the token endpoint, counted when they are over."
    );
    describe_counter!(
        "officernd_auth_token_rejections_total",
        Unit::Count,
        "Tokens that a server answered 401 to while they were in use."
    );
    describe_histogram!(
        "officernd_auth_token_age_seconds",
        Unit::Seconds,
        "How old a token was when the next one took its place."
    );
    describe_gauge!(
        "officernd_auth_token_issued_timestamp_seconds",
        Unit::Seconds,
        "When the newest token was asked for, in seconds since 1970."
    );
    describe_gauge!(
        "officernd_auth_token_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the newest token expires, in seconds since 1970."
    );
}

/// Counts a request that waits for its token, and measures the wait.
pub(crate) struct WaitTimer {
    since: Instant,
    over: bool,
}

impl WaitTimer {
    pub(crate) fn new(now: impl FnOnce() -> Instant) -> Self {
        gauge!("officernd_auth_waiting_requests").increment(1.0);
        Self {
            since: now(),
            over: false,
        }
    }

    pub(crate) fn finish(mut self, outcome: RequestOutcome, now: impl FnOnce() -> Instant) {
        self.over = true;
        count_request(outcome);
        let waited = now().saturating_duration_since(self.since);
        let outcome = match outcome {
            RequestOutcome::Waited => "waited",
            RequestOutcome::Passed => "passed",
            _ => "failed",
        };
        histogram!("officernd_auth_wait_seconds", "outcome" => outcome).record(waited);
    }
}

impl Drop for WaitTimer {
    fn drop(&mut self) {
        gauge!("officernd_auth_waiting_requests").decrement(1.0);
        if !self.over {
            counter!("officernd_auth_requests_total", "outcome" => "left").increment(1);
        }
    }
}

/// Counts a request. It is on the path of every request: literal labels allocate nothing.
#[inline]
pub(crate) fn count_request(outcome: RequestOutcome) {
    let counter = match outcome {
        RequestOutcome::Hit => counter!("officernd_auth_requests_total", "outcome" => "hit"),
        RequestOutcome::Waited => counter!("officernd_auth_requests_total", "outcome" => "waited"),
        RequestOutcome::Failed => counter!("officernd_auth_requests_total", "outcome" => "failed"),
        RequestOutcome::Refused => {
            counter!("officernd_auth_requests_total", "outcome" => "refused")
        }
        RequestOutcome::Passed => counter!("officernd_auth_requests_total", "outcome" => "passed"),
    };
    counter.increment(1);
}

/// A token request is about to be sent.
pub(crate) fn token_request() {
    counter!("officernd_auth_token_requests_total").increment(1);
}

/// A new token is in the slot.
pub(crate) fn token_landed(issued: SystemTime, life: Duration) {
    let issued = issued.duration_since(SystemTime::UNIX_EPOCH);
    let issued = issued.unwrap_or_default();
    gauge!("officernd_auth_token_issued_timestamp_seconds").set(issued.as_secs_f64());
    gauge!("officernd_auth_token_expiry_timestamp_seconds").set((issued + life).as_secs_f64());
}

/// The token before it was of this age.
pub(crate) fn token_replaced(age: Duration) {
    histogram!("officernd_auth_token_age_seconds").record(age);
}

pub(super) fn refreshed(cause: &'static str, outcome: &'static str, took: Option<Duration>) {
    counter!("officernd_auth_refreshes_total", "cause" => cause, "outcome" => outcome).increment(1);
    if let Some(took) = took {
        histogram!("officernd_auth_refresh_duration_seconds", "outcome" => outcome).record(took);
    }
}

pub(super) fn rejected() {
    counter!("officernd_auth_token_rejections_total").increment(1);
}
