//! The token endpoint's rules.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use serde_json::json;
use tokio::time::Instant;

use super::reply::{self, Reply};
use super::state::State;
use crate::secret::Secret;

/// The answer of a request that is within the rate limit.
pub(super) fn answer(
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
        Err(refusal) => refusal.reply(),
    };
    let no_store = HeaderValue::from_static("no-store");
    reply.headers_mut().insert(CACHE_CONTROL, no_store);
    reply
}

/// The answer of one that is not.
pub(super) fn too_many(wait: Option<Duration>) -> Reply {
    const TOO_MANY: &str = "Too many requests, please try again later.";
    let mut reply = reply::text(StatusCode::TOO_MANY_REQUESTS, TOO_MANY);
    if let Some(wait) = wait {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    reply
}

/// An `error` of RFC 6749 §5.2.
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
}

impl Refusal {
    fn bad(error: &'static str, description: &'static str) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self {
            status,
            error,
            description,
        }
    }

    /// The description is a constant: what the client sent is never echoed.
    fn reply(&self) -> Reply {
        let body = json!({"error": self.error, "error_description": self.description});
        reply::json(self.status, body.to_string())
    }
}

fn grant(
    state: &mut State,
    headers: &HeaderMap,
    body: &[u8],
    now: Instant,
) -> Result<serde_json::Value, Refusal> {
    if !is_form(headers) {
        return Err(Refusal::bad("invalid_request", "the body must be a form"));
    }
    let form = Form::parse(body)?;
    if form.grant_type != "client_credentials" {
        return Err(Refusal::bad(
            "unsupported_grant_type",
            "use client_credentials",
        ));
    }
    let settings = &state.settings;
    let secret = settings.secrets.get(&form.client_id);
    if secret.map(Secret::expose) != Some(&*form.client_secret) {
        return Err(Refusal {
            status: reply::final_status(settings.invalid_client_status),
            error: "invalid_client",
            description: "client authentication failed",
        });
    }
    let scopes: Vec<_> = form.scope.split_whitespace().map(str::to_owned).collect();
    // All or nothing: one scope too many, and there is no token.
    if scopes.is_empty() || scopes.iter().any(|scope| !settings.scopes.contains(scope)) {
        return Err(Refusal::bad(
            "invalid_scope",
            "the app lacks a scope asked for",
        ));
    }

    let scope = scopes.join(" ");
    let (token, remaining) = token(state, form.client_id, scopes, now);
    Ok(json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": remaining.as_secs().max(1),
        "scope": scope,
    }))
}

fn token(
    state: &mut State,
    client_id: String,
    scopes: Vec<String>,
    now: Instant,
) -> (String, Duration) {
    if state.settings.reuse_live_token {
        if let Some(live) = state.tokens.reissue(&client_id, &scopes, now) {
            return live;
        }
    }
    if state.settings.revoke_older {
        state.tokens.revoke_all();
    }
    let life = state.settings.token_life;
    (state.tokens.issue(client_id, scopes, now, life), life)
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

#[derive(Default)]
struct Form {
    client_id: String,
    client_secret: String,
    grant_type: String,
    scope: String,
}

impl Form {
    /// All four fields, each once (RFC 6749 §3.2).
    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let field = match &*name {
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                "grant_type" => &mut form.grant_type,
                "scope" => &mut form.scope,
                _ => continue,
            };
            if !field.is_empty() {
                return Err(Refusal::bad("invalid_request", "a field is there twice"));
            }
            *field = value.into_owned();
        }
        let fields = [
            &form.client_id,
            &form.client_secret,
            &form.grant_type,
            &form.scope,
        ];
        if fields.iter().any(|field| field.is_empty()) {
            return Err(Refusal::bad("invalid_request", "a field is missing"));
        }
        Ok(form)
    }
}
