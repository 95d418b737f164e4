//! Answers, and what they mean.

use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use proptest::prelude::*;

use super::*;

const ASKED: Option<&str> = Some("a b");

fn answer(
    status: u16,
    headers: &[(http::HeaderName, &str)],
    body: &[u8],
) -> Result<Granted, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, value.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    parse(status, &map, body, ASKED, SystemTime::UNIX_EPOCH)
}

fn ok(body: &str) -> Result<Granted, Error> {
    answer(200, &[], body.as_bytes())
}

fn life_of(expires_in: &str) -> Option<u64> {
    let body = format!(r#"{{"access_token":"t","expires_in":{expires_in}}}"#);
    match ok(&body) {
        Ok(answer) => Some(answer.token.expires_in().as_secs()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Malformed);
            None
        }
    }
}

#[test]
fn the_documented_answer_is_read() {
    let answer = ok(
        "\u{feff} {\"access_token\":\"abc.D-E_f~+/==\",\"token_type\":\"bEARER\",\
         \"expires_in\":3599,\"scope\":\" b  a\\tc\",\"extra\":{\"a\":1,\"a\":2}} \n",
    )
    .unwrap();
    assert_eq!(answer.token.header_value(), "Bearer abc.D-E_f~+/==");
    assert_eq!(answer.token.expires_in(), Duration::from_secs(3599));
    assert_eq!(answer.token.scope(), Some("b a c"));
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
        assert_eq!(answer.token.header_value(), "Bearer t");
        assert_eq!(answer.token.expires_in(), DEFAULT_LIFE);
        assert_eq!(answer.token.scope(), ASKED);
        assert!(!answer.narrowed);
    }
}

#[test]
fn a_narrower_scope_is_kept_and_noted() {
    let answer = ok(r#"{"access_token":"t","scope":"a"}"#).unwrap();
    assert_eq!(answer.token.scope(), Some("a"));
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
        ("\"+1\"", Some(1)),
        ("0", None),
        ("-0", None),
        ("0.9", None),
        ("1e-400", None),
        ("-1", None),
        ("1e400", None),
        ("-1e400", None),
        ("\"1e400\"", None),
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
        ("hunter2", "not a JSON object"),
        ("{\"access_token\":\"hunter2\"", "not a JSON object"),
        ("{\"access_token\":\"hunter2\"}{}", "not a JSON object"),
        ("[\"hunter2\"]", "not a JSON object"),
        ("\"hunter2\"", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "no access_token"),
        (r#"{"access_token":null}"#, "no access_token"),
        (r#"{"access_token":""}"#, "is empty or"),
        (r#"{"access_token":17}"#, "wrong type"),
        (r#"{"access_token":"hunter2 x"}"#, "b64token"),
        (r#"{"access_token":"hunter2\n"}"#, "b64token"),
        (r#"{"access_token":"hunter2é"}"#, "b64token"),
        (r#"{"access_token":"a","access_token":"a"}"#, "there twice"),
        (
            r#"{"access_token":"a","access\u005ftoken":"b"}"#,
            "there twice",
        ),
        (r#"{"access_token":"a","token_type":"mac"}"#, "not Bearer"),
        (r#"{"access_token":"a","token_type":""}"#, "not Bearer"),
        (r#"{"access_token":"a","token_type":1}"#, "wrong type"),
        (r#"{"access_token":"a","scope":["a"]}"#, "wrong type"),
        (
            r#"{"access_token":"a","error":"hunter2"}"#,
            "carries an unknown error",
        ),
        (r#"{"access_token":"a","error":{}}"#, "wrong type"),
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
        (400, r#"{"error":"temporarily_unavailable"}"#, Transport),
        (401, r#"{"error":"server_error"}"#, Transport),
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
        // Whatever the kind: a refusal may come from something in between.
        assert_eq!(
            error.retry_after(),
            Some(Duration::from_secs(20)),
            "{status} {body}"
        );
    }
    assert_eq!(answer(503, &[], b"").unwrap_err().retry_after(), None);
}

proptest! {
    #[test]
    fn every_life_is_between_a_second_and_a_day(number in any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite())) {
        let wanted = (number >= 1.0).then(|| number.min(86400.0) as u64);
        prop_assert_eq!(life_of(&format!("{number:?}")), wanted);
        prop_assert_eq!(life_of(&format!("\"{number}\"")), wanted);
    }
}

#[test]
fn a_token_that_no_header_takes_is_malformed() {
    let body = |bytes| format!(r#"{{"access_token":"{}"}}"#, "t".repeat(bytes));
    assert!(ok(&body(16 * 1024)).is_ok());
    let error = ok(&body(16 * 1024 + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("16 KiB"), "{error}");
}

#[test]
fn a_refused_scope_names_what_was_asked_for() {
    let error = answer(400, &[], br#"{"error":"invalid_scope"}"#).unwrap_err();
    let error = error.to_string();
    assert!(error.ends_with("it was asked for a b"), "{error}");
    for example in ["flex.community.members.read", "officernd.api.read"] {
        assert!(error.contains(example), "{error}");
    }
}

#[test]
fn a_doubled_field_that_nobody_reads_does_no_harm() {
    assert!(ok(r#"{"x":1,"access_token":"a","x":1}"#).is_ok());
}
