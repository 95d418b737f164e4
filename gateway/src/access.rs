//! Who is let in, and how those are seen off who are.

use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::App;

/// Lets in what this machine's programs send, and sees clients off.
pub(crate) async fn access(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match turned_away(&request) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    };
    if app.leaving.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// A web page that somebody looks at on this machine can send requests here,
/// and by a name of its own for 127.0.0.1 even read the answers. Where a header
/// comes twice, each has to be right.
fn turned_away(request: &Request) -> Option<&'static str> {
    let all = |name: HeaderName, sound: &dyn Fn(&str) -> bool| {
        let mut values = request.headers().get_all(name).iter();
        values.all(|value| value.to_str().is_ok_and(sound))
    };
    let host = request.headers().get(HOST);
    let target = request.uri().authority();
    let ours = all(HOST, &is_ours) && target.is_none_or(|target| is_ours(target.as_str()));
    let Some(Ok(host)) = host.map(HeaderValue::to_str).filter(|_| ours) else {
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
    Some("this gateway serves no other site's pages\n")
}

/// A loopback name, with a port or without.
fn is_ours(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().any(|own| name.eq_ignore_ascii_case(own))
}
