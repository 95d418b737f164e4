//! The admin address: health, readiness, metrics and the status page, but not the API.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::apps::{App, Gateway, State};
use crate::{access, metrics, page};

/// On a loopback address, refuses web pages that reach it by DNS rebinding. On other addresses any
/// `Host` is valid.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let is_loopback = gateway.config.admin.ip().is_loopback();
    let router = Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(gateway);
    match is_loopback {
        true => router.layer(from_fn(access::local_only)),
        false => router,
    }
}

impl Gateway {
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// Returns whether a request can be sent with a token now, and the state of each app. One organization
    /// with a token is enough: callers of the others get errors of their own.
    pub(crate) fn states(&self) -> (bool, Vec<State>) {
        let states: Vec<State> = self.apps.iter().map(App::state).collect();
        let ready = states.iter().any(|state| state.status.has_token());
        (ready && !self.is_shutting_down(), states)
    }
}

async fn ready(Extract(gateway): Extract<Arc<Gateway>>) -> Response {
    let (ready, states) = gateway.states();
    let code = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::json!({
        "ready": ready,
        "shutting_down": gateway.is_shutting_down(),
        "organizations": states,
        "last_api_failure": gateway.failures.last(),
    });
    (code, Json(body)).into_response()
}

async fn scrape(Extract(gateway): Extract<Arc<Gateway>>) -> impl IntoResponse {
    let (ready, states) = gateway.states();
    metrics::scraped(&states, ready);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, format)], gateway.exporter.render())
}
