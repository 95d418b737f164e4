//! The API's rules.

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use tokio::time::Instant;

use super::reply::{self, Reply};
use super::state::State;

const UNAUTHORIZED: &str =
    r#"{"statusCode":401,"message":"Unauthorized access","error":"Unauthorized"}"#;
const WRONG_ORGANIZATION: &str =
    r#"{"statusCode":500,"message":"Organization not found","error":"Internal Server Error"}"#;
const LIST_V1: &str = r#"[{"_id":"65f0c0ffee0000000000a001","name":"Main Street"}]"#;
const LIST_V2: &str = r#"{"rangeStart":1,"rangeEnd":1,"cursorNext":null,"results":[{"_id":"65f0c0ffee0000000000a001","name":"Main Street"}]}"#;

/// The challenges of RFC 6750 §3, for those who switch them on.
const NO_TOKEN: &str = "Bearer";
const INVALID_TOKEN: &str = r#"Bearer error="invalid_token""#;
const INSUFFICIENT_SCOPE: &str = r#"Bearer error="insufficient_scope""#;

pub(super) fn answer(state: &State, parts: &request::Parts, now: Instant) -> Reply {
    let Some(target) = Target::parse(parts.uri.path()) else {
        return reply::text(StatusCode::NOT_FOUND, "Not Found");
    };
    if !is_served(&parts.method) {
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    if let Err(challenge) = authorize(state, &parts.headers, target.resource, now) {
        let mut reply = reply::json(StatusCode::UNAUTHORIZED, UNAUTHORIZED);
        if state.settings.challenge {
            let challenge = HeaderValue::from_static(challenge);
            reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        return reply;
    }
    if target.slug != state.settings.org_slug {
        return reply::json(StatusCode::INTERNAL_SERVER_ERROR, WRONG_ORGANIZATION);
    }
    reply::json(StatusCode::OK, target.list)
}

struct Target<'a> {
    list: &'static str,
    slug: &'a str,
    resource: &'a str,
}

impl<'a> Target<'a> {
    /// `/api/v1|v2/organizations/{slug}/{resource}`
    fn parse(path: &'a str) -> Option<Self> {
        let (version, rest) = path.strip_prefix("/api/")?.split_once('/')?;
        let list = match version {
            "v1" => LIST_V1,
            "v2" => LIST_V2,
            _ => return None,
        };
        let (slug, resource) = rest.strip_prefix("organizations/")?.split_once('/')?;
        Some(Self {
            list,
            slug,
            resource,
        })
    }
}

fn is_served(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE"
    )
}

/// Whether the request may pass, or the challenge that says why not.
fn authorize(
    state: &State,
    headers: &HeaderMap,
    resource: &str,
    now: Instant,
) -> Result<(), &'static str> {
    if !headers.contains_key(AUTHORIZATION) {
        return Err(NO_TOKEN);
    }
    let token = bearer(headers).ok_or(INVALID_TOKEN)?;
    let scopes = state.tokens.scopes(token, now).ok_or(INVALID_TOKEN)?;
    let mut required = state.settings.required.iter();
    if required.all(|(path, scope)| !is_below(resource, path) || scopes.contains(scope)) {
        Ok(())
    } else {
        Err(INSUFFICIENT_SCOPE)
    }
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// By whole segments: `members/1` is below `members`, `membership` is not.
fn is_below(resource: &str, path: &str) -> bool {
    let mut segments = resource.split('/');
    let mut wanted = path.split('/').filter(|segment| !segment.is_empty());
    wanted.all(|wanted| segments.next() == Some(wanted))
}
