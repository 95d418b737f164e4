//! Forwards a request: both bodies stream, and what belongs to one hop stays there.

use std::sync::{Arc, Mutex, PoisonError};
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
use http_body_util::{BodyExt as _, Empty};
use tower::ServiceExt as _;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, ResponseBodyTimeoutLayer};

use crate::access;
use crate::apps::Gateway;
use crate::hop_by_hop;
use crate::metrics;
use crate::out::chain;
use crate::problem::problem;

const VIA_GATEWAY: HeaderValue = HeaderValue::from_static("1.1 officernd-gateway");

/// Lets the time-out of a body that stands still answer before the answer time-out.
const GRACE: Duration = Duration::from_millis(500);

/// `/api`, for programs on this machine.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let (body_timeout, body_limit) = (gateway.config.body_timeout, gateway.config.body_limit);
    let leaving = from_fn_with_state(Arc::clone(&gateway), access::close_when_leaving);
    Router::new()
        .route("/api/{*path}", any(forward))
        .with_state(gateway)
        .layer(ResponseBodyTimeoutLayer::new(body_timeout))
        .layer(RequestBodyTimeoutLayer::new(body_timeout))
        .layer(RequestBodyLimitLayer::new(body_limit))
        // Around the limits and timeouts, so that their answers count too.
        .layer(from_fn(observe))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "only /api/ is here") })
        .layer(from_fn(access::local_only))
        .layer(leaving)
}

/// The path and query at an origin.
pub(crate) fn at(origin: &Uri, path: &str) -> Option<Uri> {
    let mut parts = origin.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

async fn observe(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let started = Instant::now();
    let response = next.run(request).await;
    metrics::answered(&method, response.status(), started.elapsed());
    response
}

async fn forward(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Response> {
    // TRACE would show the token to the caller.
    if request.method() == Method::TRACE || request.method() == Method::CONNECT {
        let allow = [(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")];
        return Err((StatusCode::METHOD_NOT_ALLOWED, allow).into_response());
    }
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let plain = !hop_by_hop::has_dot_segments(parts.uri.path());
    let Some(target) = at(&gateway.config.upstream, path).filter(|_| plain) else {
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

    let moved = Arc::new(Mutex::new(Instant::now()));
    let answer = async {
        if !has_body {
            let request = Request::from_parts(parts, Empty::new());
            return gateway.replaying.clone().oneshot(request).await;
        }
        let moved = Arc::clone(&moved);
        let body = body.map_frame(move |frame| {
            *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            frame
        });
        let request = Request::from_parts(parts, Body::new(body));
        gateway.streaming.clone().oneshot(request).await
    };
    let Some(answer) = unless_idle(gateway.config.answer_timeout, &moved, answer).await else {
        let cause = "the API did not answer in time";
        gateway.failures.record(cause, cause.to_owned());
        return Err(problem(StatusCode::GATEWAY_TIMEOUT, cause));
    };
    let mut response = answer.map_err(|error| gateway.failures.answer(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Not asked for: `Upgrade` is not forwarded.
        let cause = "the API switched protocols";
        gateway.failures.record(cause, cause.to_owned());
        return Err(problem(StatusCode::BAD_GATEWAY, cause));
    }
    hop_by_hop::clean_response(response.headers_mut());
    response.headers_mut().append(VIA, VIA_GATEWAY);
    Ok(response.map(|body| {
        Body::new(body.map_err(move |error| {
            let problem = format!("the answer broke off: {}", chain(&error));
            gateway.failures.record("the answer broke off", problem);
            error
        }))
    }))
}

/// Runs a future until the request's body has not moved for the time-out. Returns `None` then.
async fn unless_idle<T>(
    timeout: Duration,
    moved: &Mutex<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let read = || *moved.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let last = read();
        let end = tokio::time::Instant::from_std(last) + timeout + GRACE;
        if let Ok(output) = tokio::time::timeout_at(end, &mut future).await {
            return Some(output);
        }
        if last == read() {
            return None;
        }
    }
}
