//! With the feature `metrics`: counters, gauges and histograms for the installed recorder.
//!
//! Each is looked up when it is recorded, so the recorder may be installed after the layer.

use std::time::{Duration, Instant, SystemTime};

use ::metrics::{Unit, counter, gauge, histogram};

/// Describes each metric, with help text and unit, to the installed recorder of the `metrics`
/// facade. Call it once, after the recorder is installed. Calling it is optional.
///
/// ```
/// // ... install an exporter, such as metrics-exporter-prometheus, then:
/// officernd_auth::observability::describe_metrics();
/// ```
pub fn describe_metrics() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_counter!(
        "officernd_auth_requests_total",
        Unit::Count,
        "Requests to the layer, by how they got their token."
    );
    describe_gauge!(
        "officernd_auth_waiting_requests",
        Unit::Count,
        "Requests that are waiting for a token."
    );
    describe_histogram!(
        "officernd_auth_wait_seconds",
        Unit::Seconds,
        "How long requests waited for a token."
    );
    describe_counter!(
        "officernd_auth_refreshes_total",
        Unit::Count,
        "Token fetches that ended, by cause and outcome."
    );
    describe_histogram!(
        "officernd_auth_refresh_duration_seconds",
        Unit::Seconds,
        "How long token fetches took, including the wait for the rate limit."
    );
    describe_counter!(
        "officernd_auth_token_requests_total",
        Unit::Count,
        "Requests sent to the token endpoint, counted when they end."
    );
    describe_counter!(
        "officernd_auth_token_rejections_total",
        Unit::Count,
        "Tokens in use that a server answered with 401."
    );
    describe_histogram!(
        "officernd_auth_token_age_seconds",
        Unit::Seconds,
        "Age of a token when it was replaced."
    );
    describe_gauge!(
        "officernd_auth_token_issued_timestamp_seconds",
        Unit::Seconds,
        "When the newest token was requested, in seconds since 1970."
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
    outcome: &'static str,
}

impl WaitTimer {
    pub(crate) fn new(now: Instant) -> Self {
        gauge!("officernd_auth_waiting_requests").increment(1.0);
        Self {
            since: now,
            outcome: "left",
        }
    }

    pub(crate) fn finish(mut self, outcome: &'static str, now: Instant) {
        self.outcome = outcome;
        let waited = now.saturating_duration_since(self.since);
        histogram!("officernd_auth_wait_seconds", "outcome" => outcome).record(waited);
    }
}

impl Drop for WaitTimer {
    fn drop(&mut self) {
        gauge!("officernd_auth_waiting_requests").decrement(1.0);
        count_request(self.outcome);
    }
}

/// Counts a request with the outcome `hit`. Literal labels allocate nothing.
#[inline]
pub(crate) fn count_hit() {
    counter!("officernd_auth_requests_total", "outcome" => "hit").increment(1);
}

/// Counts a request: `waited`, `failed`, `left`, `refused` or `passed`.
pub(crate) fn count_request(outcome: &'static str) {
    counter!("officernd_auth_requests_total", "outcome" => outcome).increment(1);
}

/// Counts a request to the token endpoint.
pub(crate) fn token_request() {
    counter!("officernd_auth_token_requests_total").increment(1);
}

/// Records the times of a new token.
pub(crate) fn token_landed(issued: SystemTime, life: Duration) {
    let issued = issued.duration_since(SystemTime::UNIX_EPOCH);
    let issued = issued.unwrap_or_default();
    gauge!("officernd_auth_token_issued_timestamp_seconds").set(issued.as_secs_f64());
    gauge!("officernd_auth_token_expiry_timestamp_seconds").set((issued + life).as_secs_f64());
}

/// Records the age of a token that is replaced.
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
