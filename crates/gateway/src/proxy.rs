//! Forwards a request: both bodies stream, and what belongs to one hop stays
//! there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, VIA};
use axum::http::uri::PathAndQuery;
use axum::http::{Extensions, HeaderValue, Method, StatusCode, Uri, Version};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http_body_util::Empty;
use tower::ServiceExt as _;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, ResponseBodyTimeoutLayer, TimeoutLayer};

use crate::access;
use crate::config::Options;
use crate::dashboard::Dashboard;
use crate::hop_by_hop;
use crate::metrics;
use crate::problem::{failure, problem};
use crate::upstream::Upstream;

const VIA_GATEWAY: HeaderValue = HeaderValue::from_static("1.1 officernd-gateway");

pub(crate) struct Proxy {
    pub(crate) upstream: Upstream,
    pub(crate) origin: Uri,
    pub(crate) dashboard: Arc<Dashboard>,
}

impl Proxy {
    /// `/api`, for programs on this machine.
    pub(crate) fn router(self, options: &Options) -> Router {
        let dashboard = Arc::clone(&self.dashboard);
        Router::new()
            .route("/api/{*path}", any(forward))
            .with_state(Arc::new(self))
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                options.answer_timeout,
            ))
            .layer(ResponseBodyTimeoutLayer::new(options.body_timeout))
            .layer(RequestBodyTimeoutLayer::new(options.body_timeout))
            .layer(RequestBodyLimitLayer::new(options.body_limit))
            // Around the limits and timeouts, so that their answers count too.
            .layer(from_fn_with_state(dashboard, observe))
            .fallback(|| async { problem(StatusCode::NOT_FOUND, "only /api/ is here") })
            .layer(from_fn(access::local_only))
    }

    /// The same path and query, upstream.
    fn target(&self, uri: &Uri) -> Option<Uri> {
        let path = uri.path_and_query().cloned();
        let path = path.unwrap_or(PathAndQuery::from_static("/"));
        if hop_by_hop::has_dot_segments(path.path()) {
            return None;
        }
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).ok()
    }
}

async fn observe(
    State(dashboard): State<Arc<Dashboard>>,
    request: Request,
    next: Next,
) -> Response {
    let _in_flight = dashboard.enter();
    let method = request.method().clone();
    let started = Instant::now();
    let response = next.run(request).await;
    record(&dashboard, &method, response.status(), started.elapsed());
    response
}

fn record(dashboard: &Dashboard, method: &Method, status: StatusCode, took: Duration) {
    dashboard.answered(status);
    if status == StatusCode::GATEWAY_TIMEOUT {
        dashboard.failed("OfficeRnD did not answer in time");
    }
    metrics::answered(method, status, took);
}

async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Result<Response, Response> {
    // TRACE would show the token to the caller.
    if request.method() == Method::TRACE || request.method() == Method::CONNECT {
        let allow = [(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")];
        return Err((StatusCode::METHOD_NOT_ALLOWED, allow).into_response());
    }
    let (mut parts, body) = request.into_parts();
    let Some(target) = proxy.target(&parts.uri) else {
        let what = "the path has dot segments";
        return Err(problem(StatusCode::BAD_REQUEST, what));
    };
    if hop_by_hop::has_passed(&parts.headers, &VIA_GATEWAY) {
        let what = "GATEWAY_UPSTREAM leads back to the gateway";
        return Err(problem(StatusCode::LOOP_DETECTED, what));
    }
    let has_body = hop_by_hop::has_body(&parts.headers);
    hop_by_hop::clean_request(&mut parts.headers);
    parts.headers.append(VIA, VIA_GATEWAY);
    parts.uri = target;
    parts.version = Version::HTTP_11;
    // What the server noted about the request is not for the client.
    parts.extensions = Extensions::new();

    let response = if has_body {
        let request = Request::from_parts(parts, body);
        proxy.upstream.streaming.clone().oneshot(request).await
    } else {
        let request = Request::from_parts(parts, Empty::new());
        proxy.upstream.replaying.clone().oneshot(request).await
    };
    let mut response = response.map_err(|error| failure(&proxy.dashboard, &error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Not asked for: `Upgrade` is not forwarded.
        let what = "OfficeRnD switched protocols";
        proxy.dashboard.failed(what);
        return Err(problem(StatusCode::BAD_GATEWAY, what));
    }
    hop_by_hop::clean_response(response.headers_mut());
    response.headers_mut().append(VIA, VIA_GATEWAY);
    Ok(response.map(Body::new))
}
