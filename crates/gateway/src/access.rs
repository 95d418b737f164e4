//! Refuses requests that do not come from a program on this machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, FORWARDED, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::apps::Gateway;

/// Answers 403 to a request of a web page or of another proxy.
pub(crate) async fn local_only(request: Request, next: Next) -> Response {
    match refusal(&request) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}

/// After SIGTERM, asks callers to close their connections.
pub(crate) async fn close_on_shutdown(
    State(gateway): State<Arc<Gateway>>,
    mut response: Response,
) -> Response {
    if gateway.is_shutting_down() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// A web page in a browser on this machine can send requests here and, if its own host name resolves to
/// 127.0.0.1, read the responses. A proxy in front would give the API to its own callers. Every value of
/// a repeated header is checked.
fn refusal(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let all = |name: HeaderName, valid: &dyn Fn(&str) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.all(|value| value.to_str().is_ok_and(valid))
    };
    let forwarded = |name: &HeaderName| name.as_str().starts_with("x-forwarded-");
    if headers.contains_key(FORWARDED) || headers.keys().any(forwarded) {
        return Some("this gateway serves only programs on its own machine, not other proxies\n");
    }
    let host = headers.get(HOST);
    let target = request.uri().authority();
    let local = all(HOST, &is_local) && target.is_none_or(|target| is_local(target.as_str()));
    let Some(Ok(host)) = host.map(HeaderValue::to_str).filter(|_| local) else {
        return Some("the host must be localhost, 127.0.0.1 or [::1]\n");
    };
    let own_origin = all(ORIGIN, &|origin| {
        let authority = origin.strip_prefix("http://");
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    });
    let site = HeaderName::from_static("sec-fetch-site");
    if own_origin && all(site, &|site| matches!(site, "same-origin" | "none")) {
        return None;
    }
    Some("this gateway does not serve web pages of other sites\n")
}

/// Returns `true` for a loopback name, with or without a port.
fn is_local(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().any(|own| name.eq_ignore_ascii_case(own))
}
