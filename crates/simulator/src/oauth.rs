//! The token endpoint's rules.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use serde_json::json;
use tokio::time::Instant;

use crate::reply::{self, Reply};
use crate::state::State;

/// Responds to a request within the rate limit.
pub(crate) fn answer(
    state: &mut State,
    parts: &request::Parts,
    body: &[u8],
    now: Instant,
) -> Reply {
    if parts.method != Method::POST {
        let mut reply = reply::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        reply
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return reply;
    }
    let mut reply = match grant(state, &parts.headers, body, now) {
        Ok(token) => reply::json(StatusCode::OK, token.to_string()),
        Err((status, error, description)) => {
            let body = json!({"error": error, "error_description": description});
            reply::json(status, body.to_string())
        }
    };
    let no_store = HeaderValue::from_static("no-store");
    reply.headers_mut().insert(CACHE_CONTROL, no_store);
    reply
}

/// Responds to a request over the rate limit.
pub(crate) fn too_many(wait: Option<Duration>) -> Reply {
    const TOO_MANY: &str = "Too many requests, please try again later.";
    let mut reply = reply::text(StatusCode::TOO_MANY_REQUESTS, TOO_MANY);
    if let Some(wait) = wait {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    reply
}

/// The status, code and description of an error (RFC 6749 §5.2).
type Refusal = (StatusCode, &'static str, &'static str);

fn bad(error: &'static str, description: &'static str) -> Refusal {
    (StatusCode::BAD_REQUEST, error, description)
}

fn grant(
    state: &mut State,
    headers: &HeaderMap,
    body: &[u8],
    now: Instant,
) -> Result<serde_json::Value, Refusal> {
    if !is_form(headers) {
        return Err(bad("invalid_request", "the body must be a form"));
    }
    let [client_id, client_secret, grant_type, scope] = fields(body)?;
    if grant_type != "client_credentials" {
        return Err(bad("unsupported_grant_type", "use client_credentials"));
    }
    let settings = &state.settings;
    if settings.secrets.get(&client_id) != Some(&client_secret) {
        let description = "client authentication failed";
        return Err((StatusCode::UNAUTHORIZED, "invalid_client", description));
    }
    let scopes: Vec<_> = scope.split_whitespace().map(str::to_owned).collect();
    // One scope that the app lacks fails the request.
    if scopes.is_empty() || scopes.iter().any(|scope| !settings.scopes.contains(scope)) {
        return Err(bad("invalid_scope", "the app lacks a requested scope"));
    }
    let scope = scopes.join(" ");
    let life = settings.token_life;
    Ok(json!({
        "access_token": state.tokens.issue(client_id, scopes, now, life),
        "token_type": "Bearer",
        "expires_in": life.as_secs().max(1),
        "scope": scope,
    }))
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| {
        essence
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Returns the four fields, each of which must be there once (RFC 6749 §3.2).
fn fields(body: &[u8]) -> Result<[String; 4], Refusal> {
    let mut id = String::new();
    let mut secret = String::new();
    let mut grant_type = String::new();
    let mut scope = String::new();
    for (name, value) in form_urlencoded::parse(body) {
        let field = match &*name {
            "client_id" => &mut id,
            "client_secret" => &mut secret,
            "grant_type" => &mut grant_type,
            "scope" => &mut scope,
            _ => continue,
        };
        if !field.is_empty() {
            return Err(bad("invalid_request", "a field is repeated"));
        }
        *field = value.into_owned();
    }
    let fields = [id, secret, grant_type, scope];
    if fields.iter().any(String::is_empty) {
        return Err(bad("invalid_request", "a field is missing"));
    }
    Ok(fields)
}
