//! Malicious callers and APIs.

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::child::{Gateway, raw_upstream, upstream, within};

/// Not every trick leaves `close` legible to hyper.
const SHORT: [(&str, &str); 1] = [("GATEWAY_HEAD_TIMEOUT", "1s")];

/// What the API got: target, headers, body, trailers.
struct Got {
    uri: String,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// An API that answers "done" and tells what it got.
async fn recorder() -> (String, mpsc::UnboundedReceiver<Got>) {
    let (report, reports) = mpsc::unbounded_channel();
    let api = upstream(move |request: Request<Incoming>| {
        let report = report.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap();
            let got = Got {
                uri: parts.uri.to_string(),
                headers: parts.headers,
                trailers: body.trailers().cloned(),
                body: body.to_bytes(),
            };
            report.send(got).unwrap();
            Response::new(Body::from("done"))
        }
    });
    (api.await, reports)
}

#[tokio::test]
async fn no_trick_of_a_callers_head_reaches_the_api() {
    let simulator = Simulator::start().await.unwrap();
    let (api, mut reports) = recorder().await;
    let gateway = Gateway::start(&simulator, &api, &SHORT);
    for trick in [
        "connection: close, authorization",
        "connection: close, host, via, content-length, transfer-encoding",
        "connection: close, x-mine\u{ff}, authorization",
        "x-mine: 1\r\nx-other: 1\r\nconnection: \u{ff}, X-Mine\r\nconnection: close,, \tx-other ",
        "connection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAM",
        "connection: close, upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13",
        "connection: close\r\nx-http-method-override: TRACE\r\nX-HTTP-Method: TRACE",
        "connection: close\r\nx-method-override: TRACE\r\nx-original-url: /oauth/token",
        "connection: close\r\nx-rewrite-url: /oauth/token\r\nx-real-ip: 192.0.2.1",
        "connection: close\r\norigin: http://localhost\r\nreferer: http://localhost/page",
        "connection: close\r\nsec-fetch-site: none\r\nsec-fetch-mode: navigate",
        "connection: close\r\nproxy-connection: close\r\nproxy-x: 1\r\ncookie: a=b",
        "connection: close\r\nauthorization: Bearer two",
        "connection: close\r\nproxy-authorization: Basic x",
    ] {
        let head = format!(
            "POST /api/v2/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer mine\r\n\
             x-end-to-end: 1\r\ncontent-length: 4\r\n{trick}\r\n\r\nfour"
        );
        // `ÿ` as a byte: no UTF-8, but legal in a header.
        let head: Vec<u8> = head.chars().map(|c| c as u8).collect();
        let answer = gateway.raw(head).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{trick}: {answer}");
        let got = within(reports.recv()).await.unwrap();
        assert_eq!(
            (got.uri.as_str(), &got.body[..]),
            ("/api/v2/x", &b"four"[..])
        );
        let names: Vec<&str> = got.headers.keys().map(|name| name.as_str()).collect();
        // Nothing beyond the token, the body's length or chunks, and the hop.
        let known = [
            "authorization",
            "content-length",
            "host",
            "transfer-encoding",
            "via",
            "x-end-to-end",
        ];
        let more: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
        assert!(more.is_empty(), "{trick}: {more:?}");
        let tokens: Vec<_> = got.headers.get_all("authorization").iter().collect();
        assert_eq!(tokens.len(), 1, "{trick}: {tokens:?}");
        assert!(!tokens[0].to_str().unwrap().contains("mine"), "{trick}");
        assert_eq!(got.headers["via"], "1.1 officernd-gateway");
        assert_eq!(got.headers["x-end-to-end"], "1");
        assert_eq!(got.headers["host"], api.trim_start_matches("http://"));
    }
}

#[tokio::test]
async fn the_framing_of_a_request_is_the_gateways_own() {
    let simulator = Simulator::start().await.unwrap();
    let (api, mut reports) = recorder().await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    for (framing, refused) in [
        ("content-length: 4\r\ncontent-length: 5", true),
        ("content-length: +4", true),
        ("content-length: 4 4", true),
        ("content-length : 4", true),
        ("transfer-encoding: gzip", true),
        ("transfer-encoding: chunked, identity", true),
        ("transfer-encoding : chunked", true),
        ("transfer-encoding: chunked\r\ncontent-length: 4", false),
        ("content-length: 99\r\ntransfer-encoding: chunked", false),
    ] {
        let body = "4\r\nfour\r\n0\r\n\r\n";
        let request = format!("POST /api/x {head}{framing}\r\n\r\n{body}");
        let answer = gateway.raw(request).await;
        if refused {
            assert!(answer.starts_with("HTTP/1.1 4"), "{framing}: {answer}");
            continue;
        }
        let got = within(reports.recv()).await.unwrap();
        assert_eq!(got.body, "four", "{framing}");
        let length = got.headers.contains_key("content-length");
        let chunked = got.headers.contains_key("transfer-encoding");
        assert!(length != chunked, "{framing}: {:?}", got.headers);
    }
    assert!(
        reports.try_recv().is_err(),
        "a refused request went through"
    );

    // An empty body that says so goes on saying so: servers ask for it (411).
    let request = format!("POST /api/x {head}content-length: 0\r\n\r\n");
    assert!(gateway.raw(request).await.starts_with("HTTP/1.1 200"));
    let got = within(reports.recv()).await.unwrap();
    assert_eq!(got.headers["content-length"], "0");

    // Trailers could carry what the head may not.
    let trailers = "trailer: authorization, x-more\r\nte: trailers\r\n";
    let body = "4\r\nfour\r\n0\r\nauthorization: Bearer mine\r\nx-more: 1\r\n\r\n";
    let chunked = "transfer-encoding: chunked";
    let request = format!("POST /api/x {head}{trailers}{chunked}\r\n\r\n{body}");
    assert!(gateway.raw(request).await.starts_with("HTTP/1.1 200"));
    let got = within(reports.recv()).await.unwrap();
    assert_eq!((got.body, got.trailers), (Bytes::from("four"), None));
}

#[tokio::test]
async fn targets_go_to_the_api_and_nowhere_else() {
    let simulator = Simulator::start().await.unwrap();
    let (api, mut reports) = recorder().await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    for (target, there) in [
        ("/api/v2//x", Ok("/api/v2//x")),
        ("/api//evil.example/x", Ok("/api//evil.example/x")),
        ("/api/a%2Fb?next=../x", Ok("/api/a%2Fb?next=../x")),
        ("/api/...", Ok("/api/...")),
        // As a client sends it that takes the gateway for its proxy.
        ("http://localhost/api/x", Ok("/api/x")),
        ("http://evil.example/api/x", Err("403")),
        ("https://app.officernd.com/api/x", Err("403")),
        ("http://localhost@evil.example/api/x", Err("40")),
        ("//api/x", Err("404")),
        ("//evil.example/api/x", Err("404")),
        ("/API/x", Err("404")),
        ("/oauth/token", Err("404")),
        ("/api/../oauth/token", Err("400")),
        ("/api/x/..", Err("400")),
        ("/api/.%2e/x", Err("400")),
        ("/api/..%2fx", Err("400")),
        ("/api/x%2F%2E%2E%2Fy", Err("400")),
        ("/api/..%5cx", Err("400")),
        ("/api/..;/x", Err("400")),
        ("*", Err("40")),
        ("evil.example:443", Err("40")),
    ] {
        let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answer = gateway.raw(format!("GET {target} {head}")).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        match there {
            Ok(uri) => {
                assert_eq!(status, "200", "{target}: {answer}");
                assert_eq!(within(reports.recv()).await.unwrap().uri, uri);
            }
            Err(code) => {
                assert!(status.starts_with(code), "{target}: {answer}");
                assert!(reports.try_recv().is_err(), "{target} went through");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_would_confuse_the_caller_does_not_pass() {
    let simulator = Simulator::start().await.unwrap();
    let api = raw_upstream(|path| match path {
        // Both framings: the chunks count, and only they are forwarded.
        "/api/both" => (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
              4\r\nfour\r\n0\r\nset-cookie: a=b\r\n\r\n",
            false,
        ),
        "/api/lengths" => (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nfour",
            false,
        ),
        "/api/switch" => (
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nraw",
            false,
        ),
        "/api/hints" => (
            b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
              HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour",
            false,
        ),
        // To the end of the connection, as HTTP/1.0 does.
        _ => (b"HTTP/1.0 200 OK\r\n\r\nfour", false),
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    for (path, status, body) in [
        ("/api/both", 200, "four"),
        ("/api/hints", 200, "four"),
        ("/api/old", 200, "four"),
        ("/api/lengths", 502, ""),
        ("/api/switch", 502, ""),
    ] {
        let response = gateway.fetch(path).await;
        assert_eq!(response.version(), Version::HTTP_11, "{path}");
        let (code, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(code, status, "{path}: {text}");
        if status == 200 {
            assert_eq!(text, body, "{path}");
        }
    }
}

#[tokio::test]
async fn a_caller_that_expects_a_100_gets_one_before_it_sends() {
    let simulator = Simulator::start().await.unwrap();
    let (api, mut reports) = recorder().await;
    let gateway = Gateway::start(&simulator, &api, &[("GATEWAY_BODY_LIMIT", "1000")]);
    let mut stream = gateway.connect().await;
    let head = "POST /api/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                expect: 100-continue\r\n";
    let request = format!("{head}content-length: 4\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut go = [0; 25];
    within(stream.read_exact(&mut go)).await.unwrap();
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"four").await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let got = within(reports.recv()).await.unwrap();
    assert_eq!(got.body, "four");
    assert!(!got.headers.contains_key("expect"));
    // A body that is too large is refused before it is sent.
    let answer = gateway.raw(format!("{head}content-length: 1001\r\n\r\n"));
    assert!(answer.await.starts_with("HTTP/1.1 413"));
}
