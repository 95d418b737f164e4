//! Forwards requests to the API and streams both bodies.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::ALLOW;
use axum::http::uri::PathAndQuery;
use axum::http::{Extensions, Method, StatusCode, Uri, Version};
use axum::middleware::{from_fn, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http_body_util::{BodyExt as _, Empty};
use tower::ServiceExt as _;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutBody};

use crate::access;
use crate::apps::Gateway;
use crate::hop_by_hop;
use crate::metrics;
use crate::out::chain;
use crate::problem::problem;

/// `/api`, for programs on this machine.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let (body_timeout, body_limit) = (gateway.config.body_timeout, gateway.config.body_limit);
    let close = map_response_with_state(Arc::clone(&gateway), access::close_on_shutdown);
    Router::new()
        .route("/api/{*path}", any(forward))
        .with_state(gateway)
        .layer(RequestBodyTimeoutLayer::new(body_timeout))
        .layer(RequestBodyLimitLayer::new(body_limit))
        // Above the limits and timeouts, so that their responses count too.
        .layer(from_fn(metrics::observe))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "only paths under /api/ are served") })
        .layer(from_fn(access::local_only))
        .layer(close)
}

/// Returns the URI of a path and query at an origin.
pub(crate) fn at(origin: &Uri, path: &str) -> Option<Uri> {
    let mut parts = origin.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
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
        let what = "the path contains dot segments";
        return Err(problem(StatusCode::BAD_REQUEST, what));
    };
    if hop_by_hop::has_passed(&parts.headers) {
        let what = "GATEWAY_UPSTREAM leads back to the gateway";
        return Err(problem(StatusCode::LOOP_DETECTED, what));
    }
    let has_body = hop_by_hop::has_body(&parts.headers);
    hop_by_hop::clean_request(&mut parts.headers);
    parts.uri = target;
    parts.version = Version::HTTP_11;
    // hyper's server and client keep different things in extensions.
    parts.extensions = Extensions::new();

    let response = if has_body {
        let request = Request::from_parts(parts, body);
        gateway.streaming.clone().oneshot(request).await
    } else {
        let request = Request::from_parts(parts, Empty::new());
        gateway.replaying.clone().oneshot(request).await
    };
    let mut response = response.map_err(|error| gateway.failures.answer(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // `Upgrade` is not forwarded, so the request did not ask for it.
        let cause = "the API switched protocols";
        gateway.failures.record(cause, cause.to_owned());
        return Err(problem(StatusCode::BAD_GATEWAY, cause));
    }
    hop_by_hop::clean_response(response.headers_mut());
    // The caller's connection decides on the version of the response, not the API's.
    *response.version_mut() = Version::HTTP_11;
    let body_timeout = gateway.config.body_timeout;
    Ok(response.map(|body| {
        let body = TimeoutBody::new(body_timeout, body);
        Body::new(body.map_err(move |error| {
            let problem = format!("the response broke off: {}", chain(&*error));
            gateway.failures.record("the response broke off", problem);
            error
        }))
    }))
}
