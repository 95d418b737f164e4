//! The admin address: health, readiness, metrics and the page. Never the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, watch};

use crate::access;
use crate::dashboard::Dashboard;
use crate::tokens::{OrganizationState, Tokens};
use crate::{metrics, page};

/// Pages that are fed at once; probes and scrapes keep the other connections.
const MAX_WATCHERS: usize = 16;

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) tokens: Tokens,
    pub(crate) dashboard: Arc<Dashboard>,
    pub(crate) exporter: PrometheusHandle,
    pub(crate) watchers: Arc<Semaphore>,
    /// Set on SIGTERM.
    pub(crate) leaving: Arc<AtomicBool>,
    /// Set when the last request has ended, and streams are to end too.
    pub(crate) ended: watch::Receiver<bool>,
}

impl Admin {
    pub(crate) fn new(
        tokens: Tokens,
        dashboard: Arc<Dashboard>,
        exporter: PrometheusHandle,
        leaving: Arc<AtomicBool>,
        ended: watch::Receiver<bool>,
    ) -> Self {
        Self {
            tokens,
            dashboard,
            exporter,
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            leaving,
            ended,
        }
    }

    /// On a loopback address, a web page must not read this by a name of its
    /// own for 127.0.0.1. Elsewhere, names are the network's affair.
    pub(crate) fn router(self, loopback: bool) -> Router {
        let router = Router::new()
            .route("/", get(page::html))
            .route("/page.css", get(page::css))
            .route("/page.js", get(page::js))
            .route("/events", get(page::events))
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

    /// Ready means that a request would go out with a token now. Of several
    /// organizations one is enough: the others' callers get their own errors.
    fn is_ready(&self, states: &[OrganizationState]) -> bool {
        !self.is_leaving() && states.iter().any(OrganizationState::has_token)
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let states = admin.tokens.states();
    let ready = admin.is_ready(&states);
    let code = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let organizations = states.iter().map(|state| {
        serde_json::json!({
            "organization": state.slug,
            "status": state.status,
            "store_problem": state.store_problem,
        })
    });
    let body = serde_json::json!({
        "ready": ready,
        "leaving": admin.is_leaving(),
        "organizations": organizations.collect::<Vec<_>>(),
    });
    (code, Json(body)).into_response()
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    let states = admin.tokens.states();
    metrics::scraped(&states, admin.is_ready(&states));
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, format)], admin.exporter.render())
}
