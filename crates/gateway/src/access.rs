//! Decides which requests are served at all.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, FORWARDED, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::apps::Gateway;

/// Serves what this machine's programs send, refuses the rest.
pub(crate) async fn local_only(request: Request, next: Next) -> Response {
    match refusal(&request) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}

/// After SIGTERM, each answer asks its client to close the connection.
pub(crate) async fn close_when_leaving(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if gateway.is_leaving() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// A web page in a browser on this machine can send requests here and, under a
/// name of its own for 127.0.0.1, read the answers. Another proxy in front
/// would give the API to its callers. If a header comes twice, each has to be
/// right.
fn refusal(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let all = |name: HeaderName, valid: &dyn Fn(&str) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.all(|value| value.to_str().is_ok_and(valid))
    };
    let forwarded = |name: &HeaderName| name.as_str().starts_with("x-forwarded-");
    if headers.contains_key(FORWARDED) || headers.keys().any(forwarded) {
        return Some("this gateway serves programs on its own machine, not another proxy\n");
    }
    let host = headers.get(HOST);
    let target = request.uri().authority();
    let local = all(HOST, &is_local) && target.is_none_or(|target| is_local(target.as_str()));
    let Some(Ok(host)) = host.map(HeaderValue::to_str).filter(|_| local) else {
        return Some("this gateway answers to localhost, 127.0.0.1 and [::1] only\n");
    };
    let own_origin = all(ORIGIN, &|origin| {
        let authority = origin.strip_prefix("http://");
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    });
    let site = HeaderName::from_static("sec-fetch-site");
    if own_origin && all(site, &|site| matches!(site, "same-origin" | "none")) {
        return None;
    }
    Some("this gateway does not serve the pages of other sites\n")
}

/// A loopback name, with or without a port.
fn is_local(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().any(|own| name.eq_ignore_ascii_case(own))
}
