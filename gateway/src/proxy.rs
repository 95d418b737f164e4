//! One request, forwarded: streaming both ways, without what belongs to one hop.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, RETRY_AFTER, SET_COOKIE, VIA};
use axum::http::uri::PathAndQuery;
use axum::http::{Extensions, HeaderValue, Method, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics::{Unit, describe_histogram, histogram};
use officernd_auth::{BoxError, Error, OfficeRndAuth, OfficeRndAuthLayer};
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

use super::dashboard::Dashboard;
use super::hop_by_hop;

type Http = Client<HttpsConnector<HttpConnector>, Body>;

/// OpenTelemetry's name, as Prometheus spells it.
const DURATION: &str = "http_server_request_duration_seconds";

const OURS: HeaderValue = HeaderValue::from_static("1.1 officernd-gateway");

#[derive(Clone)]
pub(crate) struct Proxy {
    /// For requests with a body, which streams and so cannot be sent twice.
    streaming: OfficeRndAuth<Http>,
    /// For those without: a 401 is cured by a replay with the new token.
    replaying:
        BoxCloneSyncService<hyper::Request<Empty<Bytes>>, hyper::Response<Incoming>, BoxError>,
    upstream: Uri,
    board: Arc<Dashboard>,
}

impl Proxy {
    pub(crate) fn new(
        layer: OfficeRndAuthLayer,
        upstream: Uri,
        board: Arc<Dashboard>,
    ) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(5)));
        tcp.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new()
            .try_with_platform_verifier()?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Shorter than servers keep a connection: none is used as it closes.
            .pool_idle_timeout(Duration::from_secs(20))
            .build(tls);
        let streaming = layer.layer(http.clone());
        let replaying = ServiceBuilder::new()
            .layer(layer.with_retry())
            .map_request(|request: hyper::Request<Empty<Bytes>>| request.map(Body::new))
            .service(http);
        Ok(Self {
            streaming,
            replaying: BoxCloneSyncService::new(replaying),
            upstream,
            board,
        })
    }

    /// The same path and query, there.
    fn target(&self, here: &Uri) -> Option<Uri> {
        let there = here.path_and_query().cloned();
        let there = there.unwrap_or(PathAndQuery::from_static("/"));
        if hop_by_hop::has_dots(there.path()) {
            return None;
        }
        let mut parts = self.upstream.clone().into_parts();
        parts.path_and_query = Some(there);
        Uri::from_parts(parts).ok()
    }
}

pub(crate) fn describe_metrics() {
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "From a request's head to its answer's, by method and status."
    );
}

/// Around the limits and timeouts, so that what they answer counts too.
pub(crate) async fn observe(State(proxy): State<Proxy>, request: Request, next: Next) -> Response {
    let _in_flight = proxy.board.enter();
    let method = known(request.method());
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status();
    proxy.board.answered(status);
    if status == StatusCode::GATEWAY_TIMEOUT {
        proxy.board.failed("OfficeRnD did not answer in time");
    }
    histogram!(
        DURATION,
        "http_request_method" => method,
        "http_response_status_code" => status.as_str().to_owned()
    )
    .record(started.elapsed());
    response
}

/// A label has as many values as we say, not as callers like.
fn known(method: &Method) -> &'static str {
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

pub(crate) async fn forward(
    State(proxy): State<Proxy>,
    request: Request,
) -> Result<Response, Response> {
    // TRACE would show the token to the caller.
    if request.method() == Method::TRACE || request.method() == Method::CONNECT {
        let allow = [(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")];
        return Err((StatusCode::METHOD_NOT_ALLOWED, allow).into_response());
    }
    let (mut parts, body) = request.into_parts();
    let Some(target) = proxy.target(&parts.uri) else {
        return Err(problem(
            StatusCode::BAD_REQUEST,
            "the path has dot segments",
        ));
    };
    if hop_by_hop::has_been_here(&parts.headers, &OURS) {
        return Err(problem(
            StatusCode::LOOP_DETECTED,
            "GATEWAY_UPSTREAM leads back to the gateway",
        ));
    }
    let has_body = hop_by_hop::has_body(&parts.headers);
    hop_by_hop::forget(&mut parts.headers);
    hop_by_hop::forget_caller(&mut parts.headers);
    parts.headers.append(VIA, OURS);
    parts.uri = target;
    parts.version = Version::HTTP_11;
    // What was said of the request here is not for there.
    parts.extensions = Extensions::new();

    let response = if has_body {
        let request = Request::from_parts(parts, body);
        proxy.streaming.clone().oneshot(request).await
    } else {
        let request = Request::from_parts(parts, Empty::new());
        proxy.replaying.clone().oneshot(request).await
    };
    let mut response = response.map_err(|error| failure(&proxy, &error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked: `Upgrade` does not go there.
        let what = "OfficeRnD switched protocols";
        proxy.board.failed(what);
        return Err(problem(StatusCode::BAD_GATEWAY, what));
    }
    hop_by_hop::forget(response.headers_mut());
    // A browser has no cookies for a port: what the API sets would go to every
    // program on this machine.
    response.headers_mut().remove(SET_COOKIE);
    response.headers_mut().append(VIA, OURS);
    Ok(response.map(Body::new))
}

fn failure(proxy: &Proxy, error: &BoxError) -> Response {
    if let Some(error) = Error::find(error) {
        proxy.board.failed(&format!("no token: {error}"));
        let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        if let Some(after) = error.retry_after() {
            // Rounded up: who comes too early is told the same again.
            let seconds = after
                .as_secs()
                .saturating_add(u64::from(after.subsec_nanos() > 0));
            let seconds = HeaderValue::from(seconds.max(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        return response;
    }
    let (status, what) = if finds::<http_body_util::LengthLimitError>(error) {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large",
        )
    } else if finds::<tower_http::timeout::TimeoutError>(error) {
        (
            StatusCode::REQUEST_TIMEOUT,
            "the request's body stood still",
        )
    } else {
        (
            StatusCode::BAD_GATEWAY,
            "OfficeRnD cannot be reached, or broke off",
        )
    };
    if status == StatusCode::BAD_GATEWAY {
        proxy.board.failed(&format!("{what}: {}", root(error)));
    }
    problem(status, what)
}

fn problem(status: StatusCode, what: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": what }))).into_response()
}

/// Whether such an error is at the bottom of this one.
fn finds<E: StdError + 'static>(error: &BoxError) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn root(error: &BoxError) -> String {
    let mut last: &(dyn StdError + 'static) = error.as_ref();
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
