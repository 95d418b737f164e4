//! The token request's body and the token endpoint's answer (RFC 6749 §4.4, §5).
//!
//! No error here repeats what a server wrote: an `error_description` may quote
//! the secret that it refuses.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::json::{NotText, Object, text};
use super::retry_after;
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;
use crate::syntax::{valid_b64token, valid_scope};
use crate::token::LONGEST_LIFE;

/// An answer that does not say how long the token lives (RFC 6749 §5.1 allows it).
const UNSAID_LIFE: Duration = Duration::from_secs(300);

/// The codes of RFC 6749 §5.2, and what to do about each.
const CODES: [(&str, ErrorKind, &str); 6] = [
    (
        "invalid_client",
        ErrorKind::InvalidClient,
        "check the client id and secret",
    ),
    (
        "invalid_scope",
        ErrorKind::InvalidScope,
        "check the scopes and the app's permissions",
    ),
    (
        "invalid_request",
        ErrorKind::Denied,
        "check the form parameters and the token URL",
    ),
    (
        "invalid_grant",
        ErrorKind::Denied,
        "check the app and the form parameters",
    ),
    (
        "unauthorized_client",
        ErrorKind::Denied,
        "check what the app is allowed to do",
    ),
    (
        "unsupported_grant_type",
        ErrorKind::Denied,
        "check the token URL: client_credentials is not known there",
    ),
];

/// What a good token answer says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) token: Secret,
    pub(crate) expires_in: Duration,
    /// What was granted; what was asked for, where the answer does not say.
    pub(crate) scope: Option<String>,
    /// Whether a scope that was asked for was not granted.
    pub(crate) narrowed: bool,
}

/// An `application/x-www-form-urlencoded` body that is wiped with its last handle.
#[must_use]
pub(crate) fn form_body<'a>(fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Bytes {
    // Room for the worst case: a buffer that grows leaves its old bytes behind.
    let room = fields
        .clone()
        .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
        .sum();
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(room));
    form.extend_pairs(fields);
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}

/// The token in an answer, or the error that the answer amounts to.
pub(crate) fn parse_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked_scope: Option<&str>,
    now_wall: SystemTime,
) -> Result<Answer, Error> {
    let answer = if status == StatusCode::OK {
        parse_ok(headers, body, asked_scope)
    } else {
        Err(refusal(status, headers, body))
    };
    answer.map_err(|error| match retry_after::parse(headers, now_wall) {
        Some(after) if error.is_transient() => error.with_retry_after(after),
        _ => error,
    })
}

fn parse_ok(headers: &HeaderMap, body: &[u8], asked_scope: Option<&str>) -> Result<Answer, Error> {
    let object = Object::parse(headers, body).map_err(malformed)?;
    if object.get("error").is_some() {
        return Err(match error_code(&object) {
            Some(code) => coded(StatusCode::OK, code),
            None => malformed("it is a 200 that carries an unknown error"),
        });
    }
    match object.string("token_type") {
        Ok(Some(kind)) if !kind.eq_ignore_ascii_case("bearer") => {
            return Err(malformed("its token_type is not Bearer"));
        }
        Ok(_) => {}
        Err(NotText) => return Err(malformed("its token_type is not a string")),
    }
    let token = match object.string("access_token") {
        Ok(Some(token)) => token,
        Ok(None) => return Err(malformed("it has no access_token; is the token URL right?")),
        Err(NotText) => return Err(malformed("its access_token is not a string")),
    };
    if !valid_b64token(token.as_bytes()) {
        return Err(malformed(
            "its access_token is empty or has characters no header may carry",
        ));
    }
    let expires_in = match object.get("expires_in") {
        Some(raw) => life(raw)?,
        None => UNSAID_LIFE,
    };
    let granted = match object.string("scope") {
        Ok(granted) => granted.and_then(|granted| normal_scope(&granted)),
        Err(NotText) => return Err(malformed("its scope is not a string")),
    };
    let asked = asked_scope.and_then(normal_scope);
    Ok(Answer {
        token: Secret::from(token.as_str()),
        expires_in,
        narrowed: is_narrower(asked.as_deref(), granted.as_deref()),
        scope: granted.or(asked),
    })
}

/// A life in seconds, as a number or as a string of one.
fn life(raw: &RawValue) -> Result<Duration, Error> {
    let text = match text(raw) {
        Ok(text) => text,
        // A number stays text until here: JSON parsers refuse 1e400.
        Err(NotText) => Zeroizing::new(raw.get().to_owned()),
    };
    let text = text.trim();
    // `f64::from_str` would take "inf" and "nan" too.
    let numeric = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let Some(seconds) = text.parse::<f64>().ok().filter(|_| numeric) else {
        return Err(malformed("its expires_in is not a number"));
    };
    if seconds < 1.0 {
        return Err(malformed("its expires_in leaves the token no time to live"));
    }
    let seconds = seconds.min(LONGEST_LIFE.as_secs_f64()).floor();
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

/// The error that a status other than 200 stands for.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let (kind, advice) = match status.as_u16() {
        // These say that the server could not judge, whatever the body says.
        429 => (ErrorKind::RateLimited, "it takes no more requests for now"),
        408 | 500..=599 => (ErrorKind::Transport, "it could not answer"),
        300..=399 => (
            ErrorKind::Malformed,
            "redirects are never followed, as they would replay the secret; is the token URL right?",
        ),
        400..=499 => {
            let code = Object::parse(headers, body)
                .ok()
                .and_then(|object| error_code(&object));
            match (code, status) {
                (Some(code), _) => return coded(status, code),
                // The client is all that a token endpoint authenticates.
                (None, StatusCode::UNAUTHORIZED) => {
                    (ErrorKind::InvalidClient, "check the client id and secret")
                }
                (None, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
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
    Error::new(
        kind,
        format!("the token endpoint answered {}: {advice}", status.as_u16()),
    )
}

/// The RFC's code in an answer, if it is one of the RFC's.
fn error_code(object: &Object<'_>) -> Option<(&'static str, ErrorKind, &'static str)> {
    let code = object.string("error").ok()??;
    CODES
        .into_iter()
        .find(|(known, ..)| *known == code.as_str())
}

fn coded(status: StatusCode, (code, kind, advice): (&str, ErrorKind, &str)) -> Error {
    let status = status.as_u16();
    Error::new(
        kind,
        format!("the token endpoint answered {status} with {code}: {advice}"),
    )
}

fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::Malformed,
        format!("the token answer cannot be used: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_ENCODING, RETRY_AFTER};
    use proptest::prelude::*;

    use super::*;

    const ASKED: Option<&str> = Some("a b");

    fn answer(
        status: u16,
        headers: &[(http::HeaderName, &str)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        parse_answer(status, &map, body, ASKED, SystemTime::UNIX_EPOCH)
    }

    fn ok(body: &str) -> Result<Answer, Error> {
        answer(200, &[], body.as_bytes())
    }

    fn life_of(expires_in: &str) -> Option<u64> {
        let body = format!(r#"{{"access_token":"t","expires_in":{expires_in}}}"#);
        match ok(&body) {
            Ok(answer) => Some(answer.expires_in.as_secs()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Malformed);
                None
            }
        }
    }

    #[test]
    fn the_form_is_percent_encoded() {
        let fields = [
            ("client_id", "a&b=c"),
            ("client_secret", "p+w %é"),
            ("scope", "a b"),
            ("x", ""),
        ];
        let body = form_body(fields.into_iter());
        assert_eq!(
            &body[..],
            b"client_id=a%26b%3Dc&client_secret=p%2Bw+%25%C3%A9&scope=a+b&x="
        );
    }

    #[test]
    fn the_documented_answer_is_read() {
        let answer = ok(
            "\u{feff} {\"access_token\":\"abc.D-E_f~+/==\",\"token_type\":\"bEARER\",\
             \"expires_in\":3599,\"scope\":\" b  a\\tc\",\"extra\":{\"a\":1,\"a\":2}} \n",
        )
        .unwrap();
        assert_eq!(answer.token.expose(), "abc.D-E_f~+/==");
        assert_eq!(answer.expires_in, Duration::from_secs(3599));
        assert_eq!(answer.scope.as_deref(), Some("b a c"));
        assert!(!answer.narrowed);
    }

    #[test]
    fn what_may_be_missing_may_be_null() {
        for body in [
            r#"{"access_token":"t"}"#,
            r#"{"access_token":"t","token_type":null,"expires_in":null,"scope":null,"error":null}"#,
            r#"{"access_token":"\u0074","scope":"  "}"#,
        ] {
            let answer = ok(body).unwrap();
            assert_eq!(answer.token.expose(), "t");
            assert_eq!(answer.expires_in, UNSAID_LIFE);
            assert_eq!(answer.scope.as_deref(), ASKED);
            assert!(!answer.narrowed);
        }
    }

    #[test]
    fn a_narrower_scope_is_kept_and_noted() {
        let answer = ok(r#"{"access_token":"t","scope":"a"}"#).unwrap();
        assert_eq!(answer.scope.as_deref(), Some("a"));
        assert!(answer.narrowed);
    }

    #[test]
    fn a_life_is_floored_and_clamped() {
        let table = [
            ("3600", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("\" 3600 \"", Some(3600)),
            ("3599.9", Some(3599)),
            ("\"3599.9\"", Some(3599)),
            ("3.6e3", Some(3600)),
            ("1", Some(1)),
            ("86400", Some(86400)),
            ("86401", Some(86400)),
            ("1e18", Some(86400)),
            ("18446744073709551615", Some(86400)),
            ("999999999999999999999999999999", Some(86400)),
            ("1e400", Some(86400)),
            ("\"1e400\"", Some(86400)),
            ("0", None),
            ("-0", None),
            ("0.9", None),
            ("1e-400", None),
            ("-1", None),
            ("-1e400", None),
            ("\"-1\"", None),
            ("\"\"", None),
            ("\"soon\"", None),
            ("\"inf\"", None),
            ("\"NaN\"", None),
            ("\"0x10\"", None),
            ("true", None),
            ("[3600]", None),
            ("{}", None),
            ("NaN", None),
            ("+1", None),
        ];
        for (text, wanted) in table {
            assert_eq!(life_of(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_token_answer_is_malformed_and_says_why() {
        let table = [
            ("", "empty"),
            ("\u{feff}", "empty"),
            ("<!doctype html>", "HTML"),
            ("hunter2", "not JSON"),
            ("{\"access_token\":\"hunter2\"", "not JSON"),
            ("{\"access_token\":\"hunter2\"}{}", "not JSON"),
            ("[\"hunter2\"]", "not a JSON object"),
            ("\"hunter2\"", "not a JSON object"),
            ("null", "not a JSON object"),
            ("{}", "no access_token"),
            (r#"{"access_token":null}"#, "no access_token"),
            (r#"{"access_token":""}"#, "is empty or"),
            (r#"{"access_token":17}"#, "access_token is not a string"),
            (r#"{"access_token":"hunter2 x"}"#, "no header may carry"),
            (r#"{"access_token":"hunter2\n"}"#, "no header may carry"),
            (r#"{"access_token":"hunter2é"}"#, "no header may carry"),
            (r#"{"access_token":"a","access_token":"a"}"#, "key twice"),
            (
                r#"{"access_token":"a","access\u005ftoken":"b"}"#,
                "key twice",
            ),
            (r#"{"x":1,"access_token":"a","x":1}"#, "key twice"),
            (r#"{"access_token":"a","token_type":"mac"}"#, "not Bearer"),
            (r#"{"access_token":"a","token_type":""}"#, "not Bearer"),
            (
                r#"{"access_token":"a","token_type":1}"#,
                "token_type is not a string",
            ),
            (
                r#"{"access_token":"a","scope":["a"]}"#,
                "scope is not a string",
            ),
            (
                r#"{"access_token":"a","error":"hunter2"}"#,
                "carries an unknown error",
            ),
            (
                r#"{"access_token":"a","error":{}}"#,
                "carries an unknown error",
            ),
        ];
        for (body, wanted) in table {
            let error = ok(body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{body}");
            let message = format!("{error} {error:?}");
            assert!(message.contains(wanted), "{body}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(answer(200, &[], b"\xFF\xFE{").is_err());
    }

    #[test]
    fn unasked_compression_is_malformed() {
        let body = br#"{"access_token":"t"}"#;
        for (encoding, wanted) in [
            ("identity", true),
            (" Identity ", true),
            ("gzip", false),
            ("identity, br", false),
        ] {
            let answer = answer(200, &[(CONTENT_ENCODING, encoding)], body);
            assert_eq!(answer.is_ok(), wanted, "{encoding}");
        }
        let error = answer(
            401,
            &[(CONTENT_ENCODING, "gzip")],
            br#"{"error":"invalid_scope"}"#,
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidClient);
    }

    #[test]
    fn a_refusal_is_classified_by_code_then_by_status() {
        use ErrorKind::{Denied, InvalidClient, InvalidScope, Malformed, RateLimited, Transport};
        let table = [
            (400, r#"{"error":"invalid_client"}"#, InvalidClient),
            (
                200,
                r#"{"error":"invalid_client","access_token":"t"}"#,
                InvalidClient,
            ),
            (401, "\u{feff}{\"error\":\"invalid_scope\"}", InvalidScope),
            (400, r#"{"error":"invalid_request"}"#, Denied),
            (401, r#"{"error":"invalid_grant"}"#, Denied),
            (400, r#"{"error":"unauthorized_client"}"#, Denied),
            (400, r#"{"error":"unsupported_grant_type"}"#, Denied),
            (403, r#"{"error":"invalid_client"}"#, InvalidClient),
            (
                401,
                r#"{"statusCode":401,"error":"Unauthorized"}"#,
                InvalidClient,
            ),
            (401, "", InvalidClient),
            (400, "", Denied),
            (
                400,
                r#"{"error":"invalid_client","error":"invalid_scope"}"#,
                Denied,
            ),
            (400, r#"{"error":["invalid_client"]}"#, Denied),
            (403, "", Denied),
            (404, "<html>", Denied),
            (408, r#"{"error":"invalid_client"}"#, Transport),
            (
                429,
                "Too many requests, please try again later",
                RateLimited,
            ),
            (429, r#"{"error":"invalid_client"}"#, RateLimited),
            (500, r#"{"error":"invalid_client"}"#, Transport),
            (503, r#"{"error":"temporarily_unavailable"}"#, Transport),
            (302, "", Malformed),
            (307, r#"{"access_token":"t"}"#, Malformed),
            (201, r#"{"access_token":"t"}"#, Malformed),
            (204, "", Malformed),
            (101, "", Malformed),
            (999, "", Malformed),
        ];
        for (status, body, wanted) in table {
            let error = answer(status, &[(RETRY_AFTER, "20")], body.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), wanted, "{status} {body}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
            // A lasting refusal has its own hold.
            assert_eq!(
                error.retry_after().is_some(),
                wanted.is_transient(),
                "{status} {body}"
            );
        }
        assert_eq!(answer(503, &[], b"").unwrap_err().retry_after(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(
            status in 100u16..1000,
            body: Vec<u8>,
            jsonish in r#"\{("(access_token|expires_in|scope|error|x)":("[a-z]{0,4}"|[0-9.eE+-]{1,5}|null|\[\])[,}]){0,5}"#,
        ) {
            let _ = answer(status, &[], &body);
            let _ = ok(&jsonish);
        }

        #[test]
        fn every_life_is_between_a_second_and_a_day(number in any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite())) {
            let wanted = (number >= 1.0).then(|| number.min(86400.0) as u64);
            prop_assert_eq!(life_of(&format!("{number:?}")), wanted);
            prop_assert_eq!(life_of(&format!("\"{number}\"")), wanted);
        }

        #[test]
        fn a_form_reads_back(fields in prop::collection::vec((".*", ".*"), 0..5)) {
            let body = form_body(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            let read: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
            prop_assert_eq!(read, fields);
        }
    }
}
