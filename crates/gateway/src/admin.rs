//! The admin address: health, readiness, metrics and the page. Never the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::apps::{App, State};
use crate::problem::Failures;
use crate::{access, metrics, page};

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) apps: Arc<[App]>,
    /// Of the API.
    pub(crate) failures: Arc<Failures>,
    pub(crate) upstream: String,
    pub(crate) exporter: PrometheusHandle,
    /// Set on SIGTERM.
    pub(crate) leaving: Arc<AtomicBool>,
}

impl Admin {
    /// On a loopback address, a web page must not read this by a name of its
    /// own for 127.0.0.1. Elsewhere, names are the network's affair.
    pub(crate) fn router(self, loopback: bool) -> Router {
        let router = Router::new()
            .route("/", get(page::page))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(scrape))
            .with_state(self);
        match loopback {
            true => router.layer(from_fn(access::local_only)),
            false => router,
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(crate) fn states(&self) -> Vec<State> {
        self.apps.iter().map(App::state).collect()
    }

    /// Ready means that a request would go out with a token now. Of several
    /// organizations one is enough: the others' callers get their own errors.
    pub(crate) fn is_ready(&self, states: &[State]) -> bool {
        !self.is_leaving() && states.iter().any(|state| state.status.has_token())
    }
}

async fn ready(Extract(admin): Extract<Admin>) -> Response {
    let states = admin.states();
    let ready = admin.is_ready(&states);
    let code = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::json!({
        "ready": ready,
        "leaving": admin.is_leaving(),
        "organizations": states,
        "last_api_failure": admin.failures.last(),
    });
    (code, Json(body)).into_response()
}

async fn scrape(Extract(admin): Extract<Admin>) -> impl IntoResponse {
    let states = admin.states();
    metrics::scraped(&states, admin.is_ready(&states));
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, format)], admin.exporter.render())
}
