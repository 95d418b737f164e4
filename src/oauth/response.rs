//! What the token endpoint's answer means (RFC 6749 sections 5.1 and 5.2).
//!
//! No error here repeats what a server wrote: an `error_description` may quote
//! the secret that it refuses.

mod body;
mod refusal;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use self::body::Body;
use super::retry_after;
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;
use crate::syntax::{valid_b64token, valid_scope};
use crate::token::{MAX_LIFE, MAX_TOKEN_BYTES};

/// The life of a token whose answer names none, which RFC 6749 section 5.1 allows.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// What a good token answer says.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) token: Secret,
    pub(crate) expires_in: Duration,
    /// What was granted; what was asked for, where the answer does not say.
    pub(crate) scope: Option<String>,
    /// Whether a scope that was asked for was not granted.
    pub(crate) narrowed: bool,
}

/// The token in an answer, or the error that the answer stands for.
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
        Err(refusal::error(status, headers, body, asked_scope))
    };
    result.map_err(|error| match retry_after::parse(headers, now) {
        Some(after) => error.with_retry_after(after),
        None => error,
    })
}

fn granted(headers: &HeaderMap, body: &[u8], asked_scope: Option<&str>) -> Result<Granted, Error> {
    let body = Body::parse(headers, body).map_err(malformed)?;
    if body.error.is_some() {
        return Err(refusal::with_code(StatusCode::OK, &body, asked_scope)
            .unwrap_or_else(|| malformed("it is a 200 that carries an unknown error")));
    }
    let token_type =
        body::text(body.token_type).map_err(|_| malformed("its token_type is not a string"))?;
    if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(malformed("its token_type is not Bearer"));
    }
    let token = body::text(body.access_token)
        .map_err(|_| malformed("its access_token is not a string"))?
        .ok_or_else(|| malformed("it has no access_token; is the token URL right?"))?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(malformed("its access_token is over 16 KiB"));
    }
    if !valid_b64token(token.as_bytes()) {
        return Err(malformed(
            "its access_token is empty or has characters no header may carry",
        ));
    }
    let expires_in = match body::number(body.expires_in) {
        Ok(Some(seconds)) => life(seconds)?,
        Ok(None) => DEFAULT_LIFE,
        Err(_) => return Err(malformed("its expires_in is not a number")),
    };
    let granted = body::text(body.scope).map_err(|_| malformed("its scope is not a string"))?;
    let granted = granted.and_then(|granted| normal_scope(&granted));
    let asked = asked_scope.and_then(normal_scope);
    Ok(Granted {
        token: Secret::from(token.as_str()),
        expires_in,
        narrowed: is_narrower(asked.as_deref(), granted.as_deref()),
        scope: granted.or(asked),
    })
}

fn life(seconds: f64) -> Result<Duration, Error> {
    if seconds < 1.0 {
        return Err(malformed("its expires_in leaves the token no time to live"));
    }
    let seconds = seconds.min(MAX_LIFE.as_secs_f64()).floor();
    Duration::try_from_secs_f64(seconds).map_err(|_| malformed("its expires_in is not a number"))
}

/// Scopes with single spaces between; what is no scope could not be shown safely.
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
