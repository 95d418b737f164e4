//! Parses the token endpoint's response (RFC 6749 sections 5.1 and 5.2).
//!
//! Errors do not quote the response: an `error_description` may contain the secret.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::retry_after;
use crate::credentials::SCOPE_EXAMPLES;
use crate::error::{Error, ErrorKind};
use crate::syntax::valid_scope;
use crate::token::{AccessToken, MAX_LIFE};

/// Lifetime of a token without `expires_in`, which RFC 6749 section 5.1 allows.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

const NO_OBJECT: &str = "it is not a JSON object; is the token URL right?";

/// Parses the token in a response, or the error.
///
/// The token's scope is the granted one, or `requested` if the response has none.
pub(super) fn parse(
    response: &Response<Bytes>,
    requested: Option<&str>,
    now: SystemTime,
) -> Result<AccessToken, Error> {
    let status = response.status();
    let result = match status.as_u16() {
        200 => granted(response, requested),
        // The status is transient, even if the body has a permanent error code.
        408 | 429 => Err(refused(status, None, requested)),
        400..=499 => {
            let code = TokenResponse::read(response)
                .ok()
                .and_then(|body| body.error);
            Err(refused(status, code.as_deref(), requested))
        }
        _ => Err(refused(status, None, requested)),
    };
    result.map_err(|error| match retry_after::parse(response.headers(), now) {
        Some(after) => error.with_retry_after(after),
        None => error,
    })
}

/// Returns `true` if a requested scope was not granted.
pub(super) fn is_narrower(requested: Option<&str>, granted: Option<&str>) -> bool {
    let granted = granted.unwrap_or_default();
    let lacks = |scope: &str| granted.split(' ').all(|other| other != scope);
    requested.is_some_and(|requested| requested.split(' ').any(lacks))
}

/// The fields of a response; `null` means absent.
///
/// serde refuses a duplicate field. Otherwise two readers could see two different tokens.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    scope: Option<String>,
    error: Option<String>,
}

impl TokenResponse {
    /// Parses the JSON object in a response, or returns why there is none.
    fn read(response: &Response<Bytes>) -> Result<Self, &'static str> {
        let encodings = response.headers().get_all(CONTENT_ENCODING).iter();
        let mut encodings = encodings.map(|value| value.as_bytes().trim_ascii());
        if encodings.any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
            return Err("it is compressed, which was not requested; check proxies in between");
        }
        let body = response.body();
        let body = body
            .strip_prefix(b"\xEF\xBB\xBF")
            .unwrap_or(body)
            .trim_ascii();
        // The parser's errors are not shown, because they quote the body.
        match body.first() {
            None => Err("it is empty; is the token URL right?"),
            Some(b'<') => Err("it is HTML or XML; is the token URL right?"),
            Some(b'{') => serde_json::from_slice(body).map_err(|error| match error.is_data() {
                true => "a field is duplicate, or has the wrong type",
                false => NO_OBJECT,
            }),
            // The derived `Deserialize` would accept an array.
            Some(_) => Err(NO_OBJECT),
        }
    }
}

fn granted(response: &Response<Bytes>, requested: Option<&str>) -> Result<AccessToken, Error> {
    let body = TokenResponse::read(response).map_err(malformed)?;
    if let Some(code) = &body.error {
        return Err(refused(response.status(), Some(code), requested));
    }
    let token_type = body.token_type.as_deref();
    if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(malformed("its token_type is not Bearer"));
    }
    let Some(token) = body.access_token else {
        return Err(malformed("it has no access_token; is the token URL right?"));
    };
    let token = AccessToken::bearer(token.as_str(), lifetime(body.expires_in)?)?;
    let granted = body.scope.as_deref().and_then(normal_scope);
    Ok(match granted.or(requested.map(str::to_owned)) {
        Some(scope) => token.with_scope(scope),
        None => token,
    })
}

fn lifetime(expires_in: Option<Value>) -> Result<Duration, Error> {
    let seconds = match expires_in {
        None => return Ok(DEFAULT_LIFE),
        Some(Value::Number(number)) => number.as_f64(),
        // Some servers send a number as a string.
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    // `f64::from_str` accepts "inf" and "nan".
    let seconds = seconds.filter(|seconds: &f64| seconds.is_finite());
    match seconds.map(|seconds| seconds.min(MAX_LIFE.as_secs_f64()).floor()) {
        Some(seconds) if seconds < 1.0 => Err(malformed("its expires_in is below one second")),
        Some(seconds) => Ok(Duration::from_secs(seconds as u64)),
        None => Err(malformed("its expires_in is not a number")),
    }
}

/// Joins the scopes with single spaces. Drops invalid ones, which are not safe to log.
fn normal_scope(text: &str) -> Option<String> {
    let scopes = text.split_whitespace().filter(|scope| valid_scope(scope));
    let scopes = scopes.collect::<Vec<_>>().join(" ");
    (!scopes.is_empty()).then_some(scopes)
}

fn malformed(problem: &str) -> Error {
    let message = format!("the token response is invalid: {problem}");
    Error::new(ErrorKind::Malformed, message)
}

/// Returns the error of a response, by its code if RFC 6749 defines it, else by its status.
fn refused(status: StatusCode, code: Option<&str>, requested: Option<&str>) -> Error {
    let number = status.as_u16();
    let by_code = code.and_then(|code| Some((code, of_code(code)?)));
    let Some((code, (kind, advice))) = by_code else {
        let (kind, advice) = of_status(number);
        return Error::new(
            kind,
            format!("the token endpoint answered {number}: {advice}"),
        );
    };
    let mut message = format!("the token endpoint answered {number} with {code}: {advice}");
    if kind == ErrorKind::InvalidScope {
        let requested = requested.unwrap_or("none");
        message += &format!(", {SCOPE_EXAMPLES}; requested: {requested}");
    }
    Error::new(kind, message)
}

fn of_code(code: &str) -> Option<(ErrorKind, &'static str)> {
    use ErrorKind::{Denied, InvalidClient, InvalidScope, Transport};

    Some(match code {
        "invalid_client" => (InvalidClient, "check the client id and secret"),
        "invalid_scope" => (InvalidScope, "check the app's permissions and the scopes"),
        "invalid_request" => (Denied, "check the form parameters and the token URL"),
        "invalid_grant" => (Denied, "check the app and the form parameters"),
        "unauthorized_client" => (Denied, "check the permissions of the app"),
        "unsupported_grant_type" => (
            Denied,
            "check the token URL; it does not support client_credentials",
        ),
        // RFC 6749 defines these for authorization endpoints (section 4.1.2.1). Some token endpoints
        // send them too, with a 400.
        "server_error" | "temporarily_unavailable" => (Transport, "temporary failure"),
        _ => return None,
    })
}

fn of_status(status: u16) -> (ErrorKind, &'static str) {
    use ErrorKind::{Denied, InvalidClient, Malformed, RateLimited, Transport};

    match status {
        429 => (RateLimited, "too many token requests"),
        408 | 500..=599 => (Transport, "temporary failure"),
        300..=399 => (
            Malformed,
            "redirects are never followed, as they would resend the secret; is the token URL right?",
        ),
        // A token endpoint authenticates only the client.
        401 => (InvalidClient, "check the client id and secret"),
        404 | 405 => (Denied, "is the token URL right?"),
        400..=499 => (Denied, "check the token URL, the client id and the app"),
        _ => (
            Malformed,
            "expected 200 and no error; is the token URL right?",
        ),
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;
    use proptest::prelude::*;

    use super::*;

    fn parsed(status: u16, body: &str) -> Result<AccessToken, Error> {
        let response = Response::builder().status(status).header(RETRY_AFTER, "20");
        let response = response
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap();
        parse(&response, Some("a b"), SystemTime::UNIX_EPOCH)
    }

    fn seconds(expires_in: &str) -> Option<u64> {
        let body = format!(r#"{{"access_token":"t","expires_in":{expires_in}}}"#);
        match parsed(200, &body) {
            Ok(token) => Some(token.expires_in().as_secs()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Malformed);
                None
            }
        }
    }

    proptest! {
        #[test]
        fn every_lifetime_is_between_a_second_and_a_day(
            number in any::<f64>().prop_filter("JSON has no NaN", |number| number.is_finite())
        ) {
            let wanted = (number >= 1.0).then(|| number.min(86400.0) as u64);
            prop_assert_eq!(seconds(&format!("{number:?}")), wanted);
            prop_assert_eq!(seconds(&format!("\"{number}\"")), wanted);
        }
    }

    #[test]
    fn a_lifetime_that_is_not_a_number_is_malformed() {
        assert_eq!((seconds("1"), seconds("0.99")), (Some(1), None));
        for text in ["\" 3600 \"", "3.6e3", "\"+3600.9\""] {
            assert_eq!(seconds(text), Some(3600), "{text}");
        }
        let invalid = r#"1e400 "1e400" "" "soon" "inf" "NaN" "0x10" true [3600] NaN"#;
        for text in invalid.split(' ') {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn scopes_are_those_granted_or_those_requested() {
        for (field, scope, narrower) in [
            (r#""scope":" b  a\tc \u00e4""#, "b a c", false),
            (r#""scope":"  ""#, "a b", false),
            (r#""scope":null,"x":1,"x":2"#, "a b", false),
            (r#""scope":"a c""#, "a c", true),
        ] {
            let token = parsed(200, &format!(r#"{{"access_token":"t",{field}}}"#)).unwrap();
            assert_eq!(token.scope(), Some(scope));
            assert_eq!(is_narrower(Some("a b"), token.scope()), narrower, "{field}");
        }
    }

    #[test]
    fn an_invalid_response_is_malformed_and_the_error_says_why() {
        for (body, wanted) in [
            ("\u{feff}", "empty"),
            ("<!doctype html>", "HTML"),
            ("hunter2", "not a JSON object"),
            (r#"{"access_token":"hunter2"}{}"#, "not a JSON object"),
            (r#"["hunter2"]"#, "not a JSON object"),
            (r#"{"access_token":null}"#, "no access_token"),
            (r#"{"access_token":17}"#, "wrong type"),
            (r#"{"access_token":"hunter2 x"}"#, "b64token"),
            (
                r#"{"access_token":"a","access_tok\u0065n":""}"#,
                "duplicate",
            ),
            (r#"{"access_token":"a","token_type":""}"#, "not Bearer"),
            (r#"{"access_token":"a","error":"hunter2"}"#, "no error"),
            (r#"{"access_token":"a","error":{}}"#, "wrong type"),
        ] {
            let error = parsed(200, body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
            let message = format!("{error} {error:?}");
            assert!(message.contains(wanted), "{body}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_refusal_is_classified_by_code_then_by_status() {
        use ErrorKind::{Denied, InvalidClient, InvalidScope, Malformed, RateLimited, Transport};

        for (status, body, wanted) in [
            (401, "\u{feff}{\"error\":\"invalid_scope\"}", InvalidScope),
            (400, r#"{"error":"invalid_request"}"#, Denied),
            (401, r#"{"error":"invalid_grant"}"#, Denied),
            (401, r#"{"error":"unsupported_grant_type"}"#, Denied),
            (403, r#"{"error":"invalid_client"}"#, InvalidClient),
            (401, r#"{"error":"Unauthorized"}"#, InvalidClient),
            (400, "", Denied),
            (400, r#"{"error":"invalid_client","error":"x"}"#, Denied),
            (408, r#"{"error":"invalid_client"}"#, Transport),
            (429, r#"{"error":"invalid_client"}"#, RateLimited),
            (500, r#"{"error":"invalid_client"}"#, Transport),
            (401, r#"{"error":"server_error"}"#, Transport),
            (201, r#"{"access_token":"t"}"#, Malformed),
            (999, "", Malformed),
        ] {
            let error = parsed(status, body).unwrap_err();
            assert_eq!(error.kind(), wanted, "{status} {body}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
            assert_eq!(
                error.retry_after(),
                Some(Duration::from_secs(20)),
                "{status} {body}"
            );
        }
    }
}
