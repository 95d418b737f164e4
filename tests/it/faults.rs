//! What a token endpoint may do to us, over real sockets and with both clients.
//! `docs/faults.md` shows this table.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use officernd_auth::{
    ClientCredentials, ErrorKind, HttpTokenProvider, OfficeRndAuthLayer, RateLimit, TokenCache,
};
use tokio::task::JoinSet;

use crate::raw::{Raw, Script, tls_server};
use crate::support::{s, shown};

/// What a row expects: a token of so many seconds, or an error.
type Expected = Result<u64, ErrorKind>;

const GOOD: &str = r#"{"access_token":"abc","token_type":"Bearer","expires_in":3599}"#;
/// Of a fetch that has to run into it, and of one that must not, however slow the machine is.
const SHORT_LIMIT: Duration = s(2);
const LONG_LIMIT: Duration = s(120);

fn answer(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut answer = answer.into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn ok(body: impl AsRef<[u8]>) -> Script {
    Script::Answer(answer("200 OK\r\ncontent-type: application/json", body))
}

fn with(field: &str) -> Script {
    ok(format!(
        r#"{{"access_token":"abc","token_type":"Bearer",{field}}}"#
    ))
}

fn rows(elsewhere: &str) -> Vec<(String, Script, Expected)> {
    use ErrorKind::{
        Denied, InvalidClient, InvalidScope, Malformed, RateLimited, Timeout, Transport,
    };
    let endless = b"HTTP/1.1 200 OK\r\n\r\n{".to_vec();
    let status = |head: &str| Script::Answer(answer(head, ""));
    let error = |head: &str, code: &str| {
        let body = format!(r#"{{"error":"{code}","error_description":"client_secret=hunter2"}}"#);
        Script::Answer(answer(head, body))
    };
    let raw = |text: &str| Script::Answer(text.into());
    let hang = |text: &str| Script::AnswerAndHang(text.into());
    let token = |text: &str| ok(format!(r#"{{"access_token":"{text}","expires_in":60}}"#));
    let continued = [
        b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
        answer("200 OK", GOOD),
    ]
    .concat();
    let gzip = "200 OK\r\ncontent-encoding: gzip";
    let lower_case = r#"{"access_token":"a","token_type":"bearer","expires_in":60}"#;
    #[rustfmt::skip]
    let mut rows = vec![
        ("a valid response", ok(GOOD), Ok(3599)),
        ("HTML with status 200", ok("<!doctype html><p>Sign in"), Err(Malformed)),
        ("an empty body", ok(""), Err(Malformed)),
        ("JSON cut short", ok(&GOOD[..40]), Err(Malformed)),
        ("a JSON array", ok("[]"), Err(Malformed)),
        ("fewer bytes than announced", raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), Err(Transport)),
        ("no HTTP at all", Script::Answer(b"220 smtp ready\r\n".to_vec()), Err(Transport)),
        ("an endless body", Script::Endless(endless.clone()), Err(Malformed)),
        ("an endless head", Script::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), Err(Transport)),
        ("one byte at a time, slowly", Script::Drip(endless), Err(Timeout)),
        ("silence before the head", Script::AnswerAndHang(Vec::new()), Err(Timeout)),
        ("silence after the head", hang("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), Err(Timeout)),
        ("a reset", Script::Reset, Err(Transport)),
        ("a half-closed connection", Script::HalfClose, Err(Transport)),
        ("100 Continue, then a valid response", Script::Answer(continued), Ok(3599)),
        ("204 No Content", Script::Answer(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), Err(Malformed)),
        ("a duplicate key", with(r#""expires_in":60,"expires_in":90"#), Err(Malformed)),
        ("a byte order mark", ok(["\u{feff}", GOOD].concat()), Ok(3599)),
        ("expires_in as a string", with(r#""expires_in":"3599""#), Ok(3599)),
        ("expires_in as a float", with(r#""expires_in":3599.9"#), Ok(3599)),
        ("expires_in null", with(r#""expires_in":null"#), Ok(300)),
        ("expires_in missing", with(r#""scope":"a""#), Ok(300)),
        ("expires_in zero", with(r#""expires_in":0"#), Err(Malformed)),
        ("expires_in negative", with(r#""expires_in":-1"#), Err(Malformed)),
        ("expires_in 1e18", with(r#""expires_in":1e18"#), Ok(86_400)),
        ("expires_in as an object", with(r#""expires_in":{}"#), Err(Malformed)),
        ("a newline in the token", token("a\\nb"), Err(Malformed)),
        ("a token that is not ASCII", token("tök"), Err(Malformed)),
        ("an empty token", token(""), Err(Malformed)),
        ("token_type mac", ok(r#"{"access_token":"a","token_type":"mac","expires_in":60}"#), Err(Malformed)),
        ("token_type bearer, in lower case", ok(lower_case), Ok(60)),
        ("token_type missing", token("a"), Ok(60)),
        ("compression that was not requested", Script::Answer(answer(gzip, GOOD)), Err(Malformed)),
        ("an error with status 200", error("200 OK", "invalid_client"), Err(InvalidClient)),
        ("invalid_client", error("401 Unauthorized", "invalid_client"), Err(InvalidClient)),
        ("invalid_client with status 400", error("400 Bad Request", "invalid_client"), Err(InvalidClient)),
        ("invalid_scope", error("400 Bad Request", "invalid_scope"), Err(InvalidScope)),
        ("unauthorized_client", error("400 Bad Request", "unauthorized_client"), Err(Denied)),
        ("temporarily_unavailable with status 400", error("400 No", "temporarily_unavailable"), Err(Transport)),
        ("server_error with status 400", error("400 Bad Request", "server_error"), Err(Transport)),
        ("401 with an empty body", status("401 Unauthorized"), Err(InvalidClient)),
        ("403 with an empty body", status("403 Forbidden"), Err(Denied)),
        ("404", status("404 Not Found"), Err(Denied)),
        ("408", status("408 Request Timeout"), Err(Transport)),
        ("429 in plain text", Script::Answer(answer("429 No\r\nretry-after: 7", "Too many requests")), Err(RateLimited)),
        ("429 whose body never comes", hang("HTTP/1.1 429 No\r\ncontent-length: 9\r\n\r\n"), Err(RateLimited)),
        ("500", status("500 Internal Server Error"), Err(Transport)),
        ("503 with endless HTML", Script::Endless(b"HTTP/1.1 503 No\r\n\r\n<".to_vec()), Err(Transport)),
    ]
    .into_iter()
    .map(|(name, script, expected)| (name.to_owned(), script, expected))
    .collect::<Vec<_>>();
    for code in [301, 302, 307, 308] {
        let moved = status(&format!("{code} Moved\r\nlocation: {elsewhere}"));
        rows.push((format!("{code} to another host"), moved, Err(Malformed)));
    }
    rows
}

/// A cache that sends one request, so that it does not try again.
fn cache(provider: HttpTokenProvider, limit: Duration) -> TokenCache {
    let layer = OfficeRndAuthLayer::builder(provider)
        .fetch_timeout(limit)
        .acquire_timeout(2 * limit)
        .rate_limit(RateLimit::new(1, s(3600)))
        .build()
        .unwrap();
    layer.cache().clone()
}

async fn fetch(url: &str, over_reqwest: bool, limit: Duration) -> Expected {
    let credentials = ClientCredentials::new("id", "hunter2").token_url(url);
    let provider = if over_reqwest {
        HttpTokenProvider::new(credentials)
    } else {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        HttpTokenProvider::with_service(credentials, client)
    };
    match cache(provider.unwrap(), limit).token().await {
        Ok(token) => Ok(token.expires_in().as_secs()),
        Err(error) => {
            let told = shown(&error);
            assert!(!told.contains("hunter2"), "{told}");
            Err(error.kind())
        }
    }
}

#[tokio::test]
async fn the_table_of_faults_holds_over_both_clients() {
    let elsewhere = Raw::start(ok(GOOD)).await;
    let mut running = JoinSet::new();
    for (name, script, expected) in rows(&elsewhere.url) {
        for over_reqwest in [true, false] {
            let (name, script) = (name.clone(), script.clone());
            running.spawn(async move {
                let server = Raw::start(script).await;
                let limit = match expected {
                    Err(ErrorKind::Timeout) => SHORT_LIMIT,
                    _ => LONG_LIMIT,
                };
                let result = fetch(&server.url, over_reqwest, limit).await;
                assert_eq!(result, expected, "{name}, reqwest: {over_reqwest}");
                let written = server.written.load(Ordering::SeqCst);
                // 64 KiB are read; the rest is in the sockets' buffers.
                assert!(written < 16 << 20, "{name}: {written} bytes");
            });
        }
    }
    running.join_all().await;
    let followed = elsewhere.connections.load(Ordering::SeqCst);
    assert_eq!(
        followed, 0,
        "a redirect was followed: the secret went elsewhere"
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_gets_no_secret() {
    let (port, certificate, requests) = tls_server(answer("200 OK", GOOD)).await;
    let root = reqwest::Certificate::from_der(&certificate).unwrap();
    let fetch = async |host: &str| {
        let url = format!("https://{host}:{port}/oauth/token");
        let credentials = ClientCredentials::new("id", "hunter2").token_url(url);
        let client = reqwest::Client::builder().tls_certs_only([root.clone()]);
        let client = client.build().unwrap();
        let provider = HttpTokenProvider::with_reqwest(credentials, client).unwrap();
        let token = cache(provider, LONG_LIMIT).token().await;
        token.map_err(|error| error.kind())
    };
    assert_eq!(fetch("127.0.0.1").await.unwrap_err(), ErrorKind::Transport);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert!(fetch("localhost").await.is_ok());
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}
