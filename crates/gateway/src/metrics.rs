//! The Prometheus exporter and the gateway's own metrics.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Unit, counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::apps::State;
use crate::config::Config;

/// OpenTelemetry's name in Prometheus's spelling.
const DURATION: &str = "http_server_request_duration_seconds";
const INFO: &str = "officernd_gateway_info";
const READY: &str = "officernd_gateway_ready";
const TOKEN_LEFT: &str = "officernd_gateway_token_left_seconds";
const FETCH_FAILURES: &str = "officernd_gateway_consecutive_fetch_failures";

/// Installs the exporter. Must be called inside a runtime, before the first token is fetched.
pub(crate) fn install(config: &Config) -> Result<PrometheusHandle, BuildError> {
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
    officernd_auth_store::describe_metrics();
    let text = "Time from the head of a request to the head of its response, by method and status.";
    describe_histogram!(DURATION, Unit::Seconds, text);
    describe_gauge!(INFO, "Always 1, labeled with version and origin.");
    describe_gauge!(READY, "1 while /readyz responds with 200, else 0.");
    let text = "Time until an organization's token expires; 0 without a token.";
    describe_gauge!(TOKEN_LEFT, Unit::Seconds, text);
    describe_gauge!(FETCH_FAILURES, "Failed token fetches since a success.");
    // Alerts count from 0: without a first sample of 0, `increase()` misses the first event.
    counter!("officernd_auth_token_requests_total").increment(0);
    counter!("officernd_auth_token_rejections_total").increment(0);
    for outcome in ["hit", "failed"] {
        counter!("officernd_auth_requests_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["invalid_client", "invalid_scope", "denied", "ok"] {
        let labels = [("cause", "cold"), ("outcome", outcome)];
        counter!("officernd_auth_refreshes_total", &labels).increment(0);
    }
    if config.store.is_some() || config.store_file.is_some() {
        for operation in ["claim", "finish"] {
            counter!("officernd_auth_store_failures_total", "operation" => operation).increment(0);
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    gauge!(INFO, "version" => version, "upstream" => config.upstream_text()).set(1.0);
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Moves samples into histograms, which bounds the memory between scrapes.
        let mut interval = tokio::time::interval(Duration::from_secs(5));
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Updates the gauges before each scrape.
pub(crate) fn scraped(states: &[State], ready: bool) {
    gauge!(READY).set(if ready { 1.0 } else { 0.0 });
    for state in states {
        let left = state.status.expires_in;
        let failures = state.status.consecutive_failures;
        let slug = state.organization.clone();
        gauge!(TOKEN_LEFT, "organization" => slug.clone())
            .set(left.unwrap_or_default().as_secs_f64());
        gauge!(FETCH_FAILURES, "organization" => slug).set(failures);
    }
}

/// Measures a request.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    // A bounded set of labels: callers may send any method.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = known.into_iter().find(|known| request.method() == known);
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    let labels = [
        ("http_request_method", method.unwrap_or("_OTHER").to_owned()),
        ("http_response_status_code", status),
    ];
    histogram!(DURATION, &labels).record(started.elapsed());
    response
}
