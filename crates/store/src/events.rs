//! Events and metrics, with stable names: docs/observability.md lists them.

use std::time::Duration;

use officernd_auth::Error;
use tracing::{debug, info, warn};

use crate::error::with_causes;

pub(crate) fn failed(operation: &'static str, error: &Error) {
    count(
        "officernd_auth_store_failures_total",
        "operation",
        operation,
    );
    warn!(
        name: "officernd_auth.store_failed",
        operation,
        error = with_causes(error),
        "the token store failed; requests go on without it"
    );
}

pub(crate) fn back(operation: &'static str) {
    info!(
        name: "officernd_auth.store_back",
        operation,
        "the token store works again"
    );
}

pub(crate) fn entry_unusable() {
    warn!(
        name: "officernd_auth.store_entry_unusable",
        "what the token store holds here was not sealed with this secret, or is garbled; \
         it is ignored"
    );
}

pub(crate) fn clock_differs(by: Duration) {
    warn!(
        name: "officernd_auth.store_clock_differs",
        by = by.as_secs(),
        "what the token store holds here has expired by this host's clock, though not by the \
         store's: the clocks of two hosts differ; it is ignored"
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

/// Counts a fetch by where its token came from, or was requested.
pub(crate) fn served(source: &'static str) {
    count("officernd_auth_store_refreshes_total", "source", source);
}

/// Looked up each time, so that a recorder may be installed after the layer.
#[cfg(feature = "metrics")]
fn count(name: &'static str, label: &'static str, value: &'static str) {
    metrics::counter!(name, label => value).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count(_name: &'static str, _label: &'static str, _value: &'static str) {}

/// Describes each metric of the store, with help text and unit, to the installed recorder of `metrics`. Call
/// it once, after the recorder is installed. The metrics work without it.
///
/// `officernd_auth::observability::describe_metrics` describes those of the layer.
///
/// ```
/// // ... install an exporter, such as metrics-exporter-prometheus, then:
/// officernd_auth_store::describe_metrics();
/// ```
#[cfg(feature = "metrics")]
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter};

    describe_counter!(
        "officernd_auth_store_refreshes_total",
        Unit::Count,
        "Refreshes of a provider with a token store, by where the token came from."
    );
    describe_counter!(
        "officernd_auth_store_failures_total",
        Unit::Count,
        "Operations of the token store that failed: each takes it out of use for 10 s."
    );
}
