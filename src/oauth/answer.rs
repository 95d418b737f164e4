//! What the token endpoint's answer means (RFC 6749 sections 5.1 and 5.2).
//!
//! No error here repeats what a server wrote: an `error_description` may quote
//! the secret that it refuses.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::retry_after;
use crate::credentials::SCOPE_EXAMPLES;
use crate::error::{Error, ErrorKind};
use crate::syntax::valid_scope;
use crate::token::{AccessToken, MAX_LIFE};

/// The life of a token whose answer names none, which RFC 6749 section 5.1 allows.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// A token, and whether its scope is smaller than the requested one.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Its scope is the granted one, or the requested one if the answer has none.
    pub(crate) token: AccessToken,
    /// Whether a requested scope was not granted.
    pub(crate) narrowed: bool,
}

/// Reads the token in an answer, or the error that the answer stands for.
pub(crate) fn parse(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked_scope: Option<&str>,
    now: SystemTime,
) -> Result<Granted, Error> {
    let result = if status == StatusCode::OK {
        granted(headers, body, asked_scope)
    } else {
        Err(refused(status, headers, body, asked_scope))
    };
    result.map_err(|error| match retry_after::parse(headers, now) {
        Some(after) => error.with_retry_after(after),
        None => error,
    })
}

/// The fields of an answer; `null` is as good as absent.
///
/// serde refuses a field that is there twice: two readers of one answer must not
/// see two tokens.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    scope: Option<String>,
    error: Option<String>,
}

/// Some servers write numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Answer {
    /// Reads the object in an answer, or says why there is none.
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, &'static str> {
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let mut encodings = encodings.map(|value| value.as_bytes().trim_ascii());
        if encodings.any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
            return Err("it is compressed, which was not requested; is a proxy in between?");
        }
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let body = body.trim_ascii();
        // The parser's own errors quote the answer: none is shown.
        match body.first() {
            None => Err("it is empty; is the token URL right?"),
            Some(b'<') => Err("it is HTML or XML; is the token URL right?"),
            Some(b'{') => serde_json::from_slice(body).map_err(|error| match error.is_data() {
                true => "a field is there twice, or of the wrong type",
                false => NO_OBJECT,
            }),
            // The derived reader would take an array for an object.
            Some(_) => Err(NO_OBJECT),
        }
    }
}

const NO_OBJECT: &str = "it is not a JSON object; is the token URL right?";

fn granted(headers: &HeaderMap, body: &[u8], asked_scope: Option<&str>) -> Result<Granted, Error> {
    let answer = Answer::read(headers, body).map_err(malformed)?;
    if let Some(code) = &answer.error {
        return Err(with_code(StatusCode::OK, code, asked_scope)
            .unwrap_or_else(|| malformed("it is a 200 that carries an unknown error")));
    }
    let token_type = answer.token_type.as_deref();
    if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(malformed("its token_type is not Bearer"));
    }
    let token = answer.access_token;
    let token =
        token.ok_or_else(|| malformed("it has no access_token; is the token URL right?"))?;
    let token = AccessToken::bearer(token.as_str(), life(answer.expires_in)?)?;
    let granted = answer.scope.as_deref().and_then(normal_scope);
    let asked = asked_scope.and_then(normal_scope);
    let narrowed = is_narrower(asked.as_deref(), granted.as_deref());
    let token = match granted.or(asked) {
        Some(scope) => token.with_scope(scope),
        None => token,
    };
    Ok(Granted { token, narrowed })
}

fn life(expires_in: Option<Seconds>) -> Result<Duration, Error> {
    let seconds = match expires_in {
        None => return Ok(DEFAULT_LIFE),
        Some(Seconds::Number(seconds)) => Some(seconds),
        Some(Seconds::Text(text)) => text.trim().parse().ok(),
    };
    // `f64::from_str` takes "inf" and "nan" too.
    let seconds = seconds
        .filter(|seconds: &f64| seconds.is_finite())
        .ok_or_else(|| malformed("its expires_in is not a number"))?;
    if seconds < 1.0 {
        return Err(malformed("its expires_in leaves the token no time to live"));
    }
    let seconds = seconds.min(MAX_LIFE.as_secs_f64()).floor();
    Duration::try_from_secs_f64(seconds).map_err(|_| malformed("its expires_in is not a number"))
}

/// Joins the scopes with single spaces. Drops what is no scope: it could not be shown safely.
fn normal_scope(text: &str) -> Option<String> {
    let scopes: Vec<_> = text
        .split_whitespace()
        .filter(|scope| valid_scope(scope))
        .collect();
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

fn is_narrower(asked: Option<&str>, granted: Option<&str>) -> bool {
    let (Some(asked), Some(granted)) = (asked, granted) else {
        return false;
    };
    asked
        .split(' ')
        .any(|scope| granted.split(' ').all(|other| other != scope))
}

fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::Malformed,
        format!("the token answer cannot be used: {what}"),
    )
}

/// The error of an answer whose status is not 200.
fn refused(
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
            let code = Answer::read(headers, body)
                .ok()
                .and_then(|answer| answer.error);
            if let Some(error) = code.and_then(|code| with_code(status, &code, asked_scope)) {
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

/// The error of an answer with one of the codes of RFC 6749.
fn with_code(status: StatusCode, code: &str, asked_scope: Option<&str>) -> Option<Error> {
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
