//! What the token endpoint's answer means (RFC 6749 sections 5.1 and 5.2).
//!
//! No error here repeats what a server wrote: an `error_description` may quote
//! the secret that it refuses.

mod refusal;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::retry_after;
use crate::error::{Error, ErrorKind};
use crate::syntax::valid_scope;
use crate::token::{AccessToken, MAX_LIFE};

/// The life of a token whose answer names none, which RFC 6749 section 5.1 allows.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// What a good token answer says.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Its scope is what was granted; what was asked for, where the answer does not say.
    pub(crate) token: AccessToken,
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
        text(body.token_type).map_err(|_| malformed("its token_type is not a string"))?;
    if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(malformed("its token_type is not Bearer"));
    }
    let token = text(body.access_token)
        .map_err(|_| malformed("its access_token is not a string"))?
        .ok_or_else(|| malformed("it has no access_token; is the token URL right?"))?;
    let expires_in = match number(body.expires_in) {
        Ok(Some(seconds)) => life(seconds)?,
        Ok(None) => DEFAULT_LIFE,
        Err(_) => return Err(malformed("its expires_in is not a number")),
    };
    let granted = text(body.scope).map_err(|_| malformed("its scope is not a string"))?;
    let granted = granted.and_then(|granted| normal_scope(&granted));
    let asked = asked_scope.and_then(normal_scope);
    let narrowed = is_narrower(asked.as_deref(), granted.as_deref());
    let token = AccessToken::bearer(token.as_str(), expires_in)?;
    let token = match granted.or(asked) {
        Some(scope) => token.with_scope(scope),
        None => token,
    };
    Ok(Granted { token, narrowed })
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

/// The fields of an answer, still as source text: a number may be larger than
/// any type, and a string may be a secret. `null` is as good as absent.
///
/// serde refuses a field that is there twice. Two readers of one answer must
/// not see two tokens.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow)]
    token_type: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    scope: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A value is not of the type that it should have.
#[derive(Debug)]
struct WrongType;

impl<'a> Body<'a> {
    /// The object in an answer, or why there is none.
    fn parse(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, &'static str> {
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let mut encodings = encodings.map(|value| value.as_bytes().trim_ascii());
        if encodings.any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
            return Err("it is compressed, which was not asked for; is a proxy in between?");
        }
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let body = body.trim_ascii();
        // The parser's own errors quote what they did not expect: none is shown.
        match body.first() {
            None => Err("it is empty; is the token URL right?"),
            Some(b'<') => Err("it is HTML or XML; is the token URL right?"),
            Some(b'{') => serde_json::from_slice(body).map_err(|error| match error.is_data() {
                // Every field takes any value.
                true => "it has a key twice",
                false => NOT_JSON,
            }),
            // The derived reader would take an array for an object.
            Some(_) => Err(match serde_json::from_slice::<&RawValue>(body) {
                Ok(_) => "it is not a JSON object",
                Err(_) => NOT_JSON,
            }),
        }
    }
}

const NOT_JSON: &str = "it is not JSON; is the token URL right?";

fn text(raw: Option<&RawValue>) -> Result<Option<Zeroizing<String>>, WrongType> {
    let text = raw.map(|raw| serde_json::from_str(raw.get()).map(Zeroizing::new));
    text.transpose().map_err(|_| WrongType)
}

/// A number, or a string of one. Numbers stay text until here: JSON parsers
/// refuse `1e400`.
fn number(raw: Option<&RawValue>) -> Result<Option<f64>, WrongType> {
    let Some(source) = raw else { return Ok(None) };
    let text = match text(raw) {
        Ok(Some(text)) => text,
        _ => Zeroizing::new(source.get().to_owned()),
    };
    let text = text.trim();
    // `f64::from_str` would take "inf" and "nan" too.
    let numeric = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number = text.parse().ok().filter(|_| text.bytes().all(numeric));
    number.map(Some).ok_or(WrongType)
}
