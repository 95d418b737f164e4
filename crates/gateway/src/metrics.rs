//! The Prometheus exporter, and the gateway's own metrics. README.md and
//! `deploy/` name them; a test compares.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Unit, counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::dashboard::Identity;
use crate::tokens::OrganizationState;

/// OpenTelemetry's name, as Prometheus spells it.
const DURATION: &str = "http_server_request_duration_seconds";
const INFO: &str = "officernd_gateway_info";
const READY: &str = "officernd_gateway_ready";
const TOKEN_LEFT: &str = "officernd_gateway_token_left_seconds";
const FETCH_FAILURES: &str = "officernd_gateway_consecutive_fetch_failures";

/// How often the exporter drops what it has summed up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Counters of the library that an alert counts from 0: without a first sample
/// of 0, `increase()` misses the first event.
const COUNTED_FROM_ZERO: [(&str, &[(&str, &str)]); 8] = [
    ("officernd_auth_requests_total", &[("outcome", "hit")]),
    ("officernd_auth_requests_total", &[("outcome", "failed")]),
    ("officernd_auth_token_requests_total", &[]),
    ("officernd_auth_token_rejections_total", &[]),
    (
        "officernd_auth_refreshes_total",
        &[("cause", "cold"), ("outcome", "invalid_client")],
    ),
    (
        "officernd_auth_refreshes_total",
        &[("cause", "cold"), ("outcome", "invalid_scope")],
    ),
    (
        "officernd_auth_refreshes_total",
        &[("cause", "cold"), ("outcome", "denied")],
    ),
    (
        "officernd_auth_refreshes_total",
        &[("cause", "cold"), ("outcome", "ok")],
    ),
];

/// Installs the exporter. Call inside a runtime, before the first token is
/// fetched.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full("officernd_auth_token_age_seconds".to_owned()),
            &[60.0, 300.0, 900.0, 1800.0, 2700.0, 3000.0, 3300.0, 3600.0],
        )?
        .set_buckets(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ])?
        .install_recorder()?;
    officernd_auth::observability::describe_metrics();
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "From a request's head to its answer's, by method and status."
    );
    describe_gauge!(INFO, "1, with what the gateway is as labels.");
    describe_gauge!(READY, "1 while /readyz answers 200.");
    describe_gauge!(
        TOKEN_LEFT,
        Unit::Seconds,
        "How long an organization's token lives from now; 0 without one."
    );
    describe_gauge!(
        FETCH_FAILURES,
        "Fetches of an organization's token that failed since the last success."
    );
    for (name, labels) in COUNTED_FROM_ZERO {
        counter!(name, labels).increment(0);
    }
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Says what the gateway is.
pub(crate) fn identified(identity: &Identity) {
    let labels = [
        ("version", identity.version.to_owned()),
        ("upstream", identity.upstream.clone()),
    ];
    gauge!(INFO, &labels).set(1.0);
}

/// Counts the store's failures from 0, where there is a store.
pub(crate) fn count_store_failures() {
    for operation in ["claim", "finish"] {
        counter!("officernd_auth_store_failures_total", "operation" => operation).increment(0);
    }
}

/// Sets what is measured at each scrape.
pub(crate) fn scraped(states: &[OrganizationState], ready: bool) {
    gauge!(READY).set(if ready { 1.0 } else { 0.0 });
    for state in states {
        let left = state.status.expires_in;
        let failures = state.status.consecutive_failures;
        let slug = state.slug.clone();
        gauge!(TOKEN_LEFT, "organization" => slug.clone())
            .set(left.unwrap_or_default().as_secs_f64());
        gauge!(FETCH_FAILURES, "organization" => slug).set(failures);
    }
}

pub(crate) fn answered(method: &Method, status: StatusCode, took: Duration) {
    histogram!(
        DURATION,
        "http_request_method" => label(method),
        "http_response_status_code" => status.as_str().to_owned()
    )
    .record(took);
}

/// A label has a bounded number of values, whatever callers send.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}
