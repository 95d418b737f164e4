//! What is forwarded and what is not.

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use officernd_simulator::Simulator;

use crate::child::{Gateway, LOCATIONS, upstream, within};

/// A connection of our own, to send what reqwest would not.
pub(crate) async fn connection(
    gateway: &Gateway,
) -> http1::SendRequest<BoxBody<Bytes, std::convert::Infallible>> {
    let stream = TokioIo::new(gateway.connect().await);
    let (client, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_401_is_replayed_without_a_body_and_passed_on_with_one() {
    for (body, status) in [("", 200), ("{}", 401)] {
        let simulator = Simulator::start().await.unwrap();
        let gateway = Gateway::start(&simulator, simulator.url(), &[]);
        assert_eq!(gateway.get(LOCATIONS).await.0, 200);
        simulator.revoke_all();
        let send = || match body {
            "" => gateway.http.get(gateway.url(LOCATIONS)).send(),
            body => gateway.http.post(gateway.url(LOCATIONS)).body(body).send(),
        };
        assert_eq!(send().await.unwrap().status(), status);
        assert_eq!(simulator.api_unauthorized(), 1);
        within(async { while send().await.unwrap().status() == 401 {} }).await;
        assert_eq!(simulator.token_requests(), 2);
    }
}

#[tokio::test]
async fn answers_come_through_as_they_are() {
    let simulator = Simulator::start().await.unwrap();
    let api = upstream(|request: Request<Incoming>| async move {
        let response = Response::builder();
        let response = match request.uri().path() {
            "/api/gzip" => response
                .header("content-encoding", "gzip")
                .body(Body::from(&[0x1f, 0x8b, 8, 0, 255][..])),
            "/api/204" => response.status(204).body(Body::empty()),
            "/api/304" => response
                .status(304)
                .header("etag", "\"1\"")
                .body(Body::empty()),
            "/api/away" => response
                .status(307)
                .header("location", "https://evil.example/api/x")
                .body(Body::from("moved")),
            _ => response
                .header("server", "theirs")
                .header("content-length", "5")
                .header("date", "Thu, 01 Jan 2026 00:00:00 GMT")
                .body(Body::from("whole")),
        };
        response.unwrap()
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);

    let response = gateway.fetch("/api/gzip").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.headers()["content-length"], "5");
    let gzip = [0x1f, 0x8b, 8, 0, 255];
    assert_eq!(response.bytes().await.unwrap(), &gzip[..]);

    let response = gateway.fetch("/api/away").await;
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["location"], "https://evil.example/api/x");

    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    for (request, status, length) in [
        ("HEAD /api/x", "200", true),
        ("GET /api/204", "204", false),
        ("GET /api/304", "304", false),
    ] {
        let answer = gateway.raw(format!("{request} {head}")).await;
        let (answer, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_eq!(body, "", "{request}");
        assert!(!answer.contains("transfer-encoding"), "{request}: {answer}");
        assert_eq!(answer.contains("content-length: 5"), length, "{answer}");
    }
    let response = gateway.fetch("/api/x").await;
    assert_eq!(response.headers()["server"], "theirs");
    assert_eq!(response.headers()["date"], "Thu, 01 Jan 2026 00:00:00 GMT");
    assert_eq!(response.text().await.unwrap(), "whole");
}

/// What upstream sends cannot act in a browser on this machine.
#[tokio::test]
async fn headers_for_browsers_and_of_one_hop_do_not_pass() {
    let simulator = Simulator::start().await.unwrap();
    let hostile = [
        ("content-security-policy", "script-src *"),
        ("clear-site-data", "\"*\""),
        ("service-worker-allowed", "/"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("strict-transport-security", "max-age=1"),
        ("refresh", "0; url=https://evil.example/"),
        ("set-cookie", "a=b"),
        // And what belongs to one hop.
        ("connection", "x-theirs"),
        ("x-theirs", "1"),
        ("keep-alive", "timeout=5"),
    ];
    let api = upstream(move |_| async move {
        let mut response = Response::builder().header("x-total", "7");
        for (name, value) in hostile {
            response = response.header(name, value);
        }
        response
            .body(Body::from("<script>alert(1)</script>"))
            .unwrap()
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    let response = gateway.fetch("/api/v2/page").await;
    let headers = response.headers();
    let policies: Vec<_> = headers.get_all("content-security-policy").iter().collect();
    assert_eq!(policies, ["sandbox; default-src 'none'"]);
    assert_eq!(headers["x-total"], "7");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    for (name, _) in &hostile[1..] {
        assert!(!headers.contains_key(*name), "{name}");
    }
}
