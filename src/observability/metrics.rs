//! Feature `metrics` on: counters, gauges and histograms for the recorder that
//! is installed. Each is looked up when it is recorded, so that a recorder may come
//! after the layer.

use std::time::{Duration, Instant, SystemTime};

use ::metrics::{Key, Label, Level, Metadata, Unit, counter, gauge, histogram, with_recorder};

use super::RequestOutcome;
use super::names::metric;

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
        metric::REQUESTS,
        Unit::Count,
        "Requests that the layer was given, by how they got their token."
    );
    describe_gauge!(
        metric::WAITING,
        Unit::Count,
        "Requests that wait for a token now."
    );
    describe_histogram!(
        metric::WAIT,
        Unit::Seconds,
        "How long requests waited for a token that was not at hand."
    );
    describe_counter!(
        metric::REFRESHES,
        Unit::Count,
        "Token fetches that ended, by cause and outcome."
    );
    describe_histogram!(
        metric::REFRESH,
        Unit::Seconds,
        "How long token fetches took, with the wait for the allowance."
    );
    describe_counter!(
        metric::TOKEN_REQUESTS,
        Unit::Count,
        "Requests sent to the token endpoint: what the allowance counts."
    );
    describe_counter!(
        metric::REJECTIONS,
        Unit::Count,
        "Tokens that a server answered 401 to while they were in use."
    );
    describe_histogram!(
        metric::TOKEN_AGE,
        Unit::Seconds,
        "How old a token was when the next one took its place."
    );
    describe_gauge!(
        metric::ISSUED,
        Unit::Seconds,
        "When the newest token was asked for, in seconds since 1970."
    );
    describe_gauge!(
        metric::EXPIRES,
        Unit::Seconds,
        "When the newest token expires, in seconds since 1970."
    );
    #[cfg(feature = "store")]
    describe_counter!(
        metric::STORE_REFRESHES,
        Unit::Count,
        "Refreshes of a provider with a token store, by where the token was looked for."
    );
    #[cfg(feature = "store")]
    describe_counter!(
        metric::STORE_FAILURES,
        Unit::Count,
        "Operations of the token store that failed: each takes it out of the path for 10 s."
    );
}

/// Counts a request that waits for its token, and measures the wait.
pub(crate) struct WaitTimer {
    since: Instant,
    over: bool,
}

impl WaitTimer {
    pub(crate) fn new(now: impl FnOnce() -> Instant) -> Self {
        gauge!(metric::WAITING).increment(1.0);
        Self {
            since: now(),
            over: false,
        }
    }

    pub(crate) fn finish(mut self, outcome: RequestOutcome, now: impl FnOnce() -> Instant) {
        self.over = true;
        let outcome = outcome_of(outcome);
        outcome.count();
        let waited = now().saturating_duration_since(self.since);
        histogram!(metric::WAIT, "outcome" => outcome.name).record(waited);
    }
}

impl Drop for WaitTimer {
    fn drop(&mut self) {
        gauge!(metric::WAITING).decrement(1.0);
        if !self.over {
            LEFT.count();
        }
    }
}

/// One outcome of [`metric::REQUESTS`]. On the path of every request: made
/// beforehand, so that nothing is allocated.
struct Outcome {
    name: &'static str,
    key: Key,
}

macro_rules! outcome {
    ($name:literal) => {
        Outcome {
            name: $name,
            key: Key::from_static_parts(metric::REQUESTS, {
                static LABEL: [Label; 1] = [Label::from_static_parts("outcome", $name)];
                &LABEL
            }),
        }
    };
}

static HIT: Outcome = outcome!("hit");
static WAITED: Outcome = outcome!("waited");
static FAILED: Outcome = outcome!("failed");
static LEFT: Outcome = outcome!("left");
static REFUSED: Outcome = outcome!("refused");
static PASSED: Outcome = outcome!("passed");

impl Outcome {
    #[inline]
    fn count(&self) {
        static METADATA: Metadata<'static> =
            Metadata::new("officernd_auth", Level::INFO, Some(module_path!()));

        with_recorder(|recorder| {
            recorder.register_counter(&self.key, &METADATA).increment(1);
        });
    }
}

fn outcome_of(outcome: RequestOutcome) -> &'static Outcome {
    match outcome {
        RequestOutcome::Hit => &HIT,
        RequestOutcome::Waited => &WAITED,
        RequestOutcome::Failed => &FAILED,
        RequestOutcome::Refused => &REFUSED,
        RequestOutcome::Passed => &PASSED,
    }
}

#[inline]
pub(crate) fn count_request(outcome: RequestOutcome) {
    outcome_of(outcome).count();
}

/// A token request is about to be sent.
pub(crate) fn token_request() {
    counter!(metric::TOKEN_REQUESTS).increment(1);
}

/// A new token is in the slot.
pub(crate) fn token_landed(issued: SystemTime, life: Duration) {
    let issued = issued.duration_since(SystemTime::UNIX_EPOCH);
    let issued = issued.unwrap_or_default();
    gauge!(metric::ISSUED).set(issued.as_secs_f64());
    gauge!(metric::EXPIRES).set((issued + life).as_secs_f64());
}

/// The token before it was of this age.
pub(crate) fn token_replaced(age: Duration) {
    histogram!(metric::TOKEN_AGE).record(age);
}

pub(super) fn refreshed(cause: &'static str, outcome: &'static str, took: Option<Duration>) {
    counter!(metric::REFRESHES, "cause" => cause, "outcome" => outcome).increment(1);
    if let Some(took) = took {
        histogram!(metric::REFRESH, "outcome" => outcome).record(took);
    }
}

pub(super) fn rejected() {
    counter!(metric::REJECTIONS).increment(1);
}

/// A refresh took another process's token, or went to the endpoint.
#[cfg(feature = "store")]
pub(crate) fn store_served(source: &'static str) {
    counter!(metric::STORE_REFRESHES, "source" => source).increment(1);
}

#[cfg(feature = "store")]
pub(super) fn store_failed(operation: &'static str) {
    counter!(metric::STORE_FAILURES, "operation" => operation).increment(1);
}
