//! The errors that answers other than a token stand for.

use http::{HeaderMap, StatusCode};

use super::{Body, text};
use crate::credentials::SCOPE_EXAMPLES;
use crate::error::{Error, ErrorKind};

/// The error of an answer whose status is not 200.
pub(super) fn error(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked_scope: Option<&str>,
) -> Error {
    let (kind, advice) = match status.as_u16() {
        // These mean that the server could not decide, whatever the body says.
        429 => (ErrorKind::RateLimited, "it takes no more requests for now"),
        408 | 500..=599 => (ErrorKind::Transport, "it could not answer"),
        300..=399 => (
            ErrorKind::Malformed,
            "redirects are never followed, as they would replay the secret; is the token URL right?",
        ),
        400..=499 => {
            let body = Body::parse(headers, body).ok();
            if let Some(error) = body.and_then(|body| with_code(status, &body, asked_scope)) {
                return error;
            }
            match status {
                // The client is all that a token endpoint authenticates.
                StatusCode::UNAUTHORIZED => {
                    (ErrorKind::InvalidClient, "check the client id and secret")
                }
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    (ErrorKind::Denied, "is the token URL right?")
                }
                _ => (
                    ErrorKind::Denied,
                    "check the token URL, the client id and the app",
                ),
            }
        }
        _ => (
            ErrorKind::Malformed,
            "a token comes with a 200; is the token URL right?",
        ),
    };
    let status = status.as_u16();
    Error::new(
        kind,
        format!("the token endpoint answered {status}: {advice}"),
    )
}

/// The error of a body with one of the codes of RFC 6749.
pub(super) fn with_code(
    status: StatusCode,
    body: &Body<'_>,
    asked_scope: Option<&str>,
) -> Option<Error> {
    let code = text(body.error).ok()??;
    let code = code.as_str();
    let (kind, advice) = match code {
        "invalid_client" => (ErrorKind::InvalidClient, "check the client id and secret"),
        "invalid_scope" => (
            ErrorKind::InvalidScope,
            "check the app's permissions and the scopes",
        ),
        "invalid_request" => (
            ErrorKind::Denied,
            "check the form parameters and the token URL",
        ),
        "invalid_grant" => (ErrorKind::Denied, "check the app and the form parameters"),
        "unauthorized_client" => (ErrorKind::Denied, "check what the app is allowed to do"),
        "unsupported_grant_type" => (
            ErrorKind::Denied,
            "check the token URL: client_credentials is not known there",
        ),
        // RFC 6749 section 4.1.2.1. Some servers send them from here too, with a 400.
        "server_error" | "temporarily_unavailable" => (ErrorKind::Transport, "it could not answer"),
        _ => return None,
    };
    let status = status.as_u16();
    let mut message = format!("the token endpoint answered {status} with {code}: {advice}");
    if kind == ErrorKind::InvalidScope {
        let asked = asked_scope.unwrap_or("no scope");
        message += &format!(", {SCOPE_EXAMPLES}; it was asked for {asked}");
    }
    Some(Error::new(kind, message))
}
