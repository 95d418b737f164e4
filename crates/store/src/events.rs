//! Events and metrics. Their names are stable; docs/observability.md lists them.

use std::error::Error as _;
use std::time::Duration;

use officernd_auth::Error;
use tracing::{debug, info, warn};

/// Reports a failed operation. Returns the message of the error with its causes.
pub(crate) fn failed(operation: &'static str, error: &Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    // A chain of sources may be a cycle.
    for _ in 0..16 {
        let Some(source) = next else { break };
        message = format!("{message}: {source}");
        next = source.source();
    }
    count(
        "officernd_auth_store_failures_total",
        "operation",
        operation,
    );
    warn!(
        name: "officernd_auth.store_failed",
        operation,
        error = message,
        "the token store failed; requests continue without it"
    );
    message
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
        "an entry of the token store is not sealed with these credentials, or is corrupt; it is ignored"
    );
}

pub(crate) fn clock_differs(by: Duration) {
    warn!(
        name: "officernd_auth.store_clock_differs",
        by = by.as_secs(),
        "an entry of the token store has expired by this host's clock, but not by the store's; it is \
         ignored: set the clocks of the hosts"
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

/// Counts a fetch by the source of its token.
pub(crate) fn served(source: &'static str) {
    count("officernd_auth_store_refreshes_total", "source", source);
}

// Looks the recorder up each time, so that it can be installed after the layer.
#[cfg(feature = "metrics")]
fn count(name: &'static str, label: &'static str, value: &'static str) {
    metrics::counter!(name, label => value).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count(_name: &'static str, _label: &'static str, _value: &'static str) {}

/// Describes each metric of the store, with help text and unit, to the recorder of `metrics`.
///
/// Call it once, after the recorder is installed. The metrics work without it.
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
        "Refreshes of a provider with a token store, by source of the token."
    );
    describe_counter!(
        "officernd_auth_store_failures_total",
        Unit::Count,
        "Operations of the token store that failed: each puts it out of use for 10 s."
    );
}
