//! The API's rules.

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode, request};
use tokio::time::Instant;

use crate::reply::{self, Reply};
use crate::state::State;

const UNAUTHORIZED: &str =
    r#"{"statusCode":401,"message":"Unauthorized access","error":"Unauthorized"}"#;
const WRONG_ORGANIZATION: &str =
    r#"{"statusCode":500,"message":"Organization not found","error":"Internal Server Error"}"#;
const LIST_V1: &str = r#"[{"_id":"65f0c0ffee0000000000a001","name":"Main Street"}]"#;
const LIST_V2: &str = r#"{"rangeStart":1,"rangeEnd":1,"cursorNext":null,"results":[{"_id":"65f0c0ffee0000000000a001","name":"Main Street"}]}"#;

pub(crate) fn answer(state: &State, parts: &request::Parts, now: Instant) -> Reply {
    let Some((list, slug, resource)) = target(parts.uri.path()) else {
        return reply::text(StatusCode::NOT_FOUND, "Not Found");
    };
    if !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&parts.method.as_str()) {
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    if !is_authorized(state, &parts.headers, resource, now) {
        return reply::json(StatusCode::UNAUTHORIZED, UNAUTHORIZED);
    }
    if slug != state.settings.org_slug {
        return reply::json(StatusCode::INTERNAL_SERVER_ERROR, WRONG_ORGANIZATION);
    }
    reply::json(StatusCode::OK, list)
}

/// Splits `/api/v1|v2/organizations/{slug}/{resource}` into the list to return, slug and resource.
fn target(path: &str) -> Option<(&'static str, &str, &str)> {
    let (version, rest) = path.strip_prefix("/api/")?.split_once('/')?;
    let list = match version {
        "v1" => LIST_V1,
        "v2" => LIST_V2,
        _ => return None,
    };
    let (slug, resource) = rest.strip_prefix("organizations/")?.split_once('/')?;
    Some((list, slug, resource))
}

/// Returns `true` if the token is valid and has every scope that the resource requires.
fn is_authorized(state: &State, headers: &HeaderMap, resource: &str, now: Instant) -> bool {
    let scopes = bearer(headers).and_then(|token| state.tokens.scopes(token, now));
    scopes.is_some_and(|scopes| {
        let mut required = state.settings.required.iter();
        required.all(|(path, scope)| !is_below(resource, path) || scopes.contains(scope))
    })
}

/// Returns the token of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares segments: `members/1` is below `members`, `membership` is not.
fn is_below(resource: &str, path: &str) -> bool {
    let mut segments = resource.split('/');
    let mut wanted = path.split('/').filter(|segment| !segment.is_empty());
    wanted.all(|wanted| segments.next() == Some(wanted))
}
