//! Requests that the gateway refuses.

use std::time::Duration;

use axum::http::Request;
use http_body_util::{BodyExt as _, channel::Channel};
use hyper::body::Bytes;
use officernd_simulator::Simulator;
use tokio::io::AsyncWriteExt as _;

use crate::child::{Gateway, LOCATIONS, within};
use crate::forward::connection;

#[tokio::test]
async fn web_pages_of_other_sites_other_hosts_and_proxies_are_refused() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let own = format!("http://{}", gateway.addr);
    for (name, value, expected) in [
        ("host", "evil.example", 403),
        ("host", "localhost.evil.example:80", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("origin", own.as_str(), 200),
        ("sec-fetch-site", "same-origin", 200),
        ("host", "localhost", 200),
        ("host", "LocalHost", 200),
        ("host", "[::1]:8080", 200),
        ("host", "127.0.0.1.evil.example", 403),
        ("host", "[::1", 403),
        ("host", "", 403),
        // Through another proxy.
        ("x-forwarded-for", "192.0.2.1", 403),
        ("x-forwarded-host", "localhost", 403),
        ("forwarded", "for=192.0.2.1", 403),
    ] {
        let request = gateway.http.get(gateway.url(LOCATIONS));
        let request = request.header(name, value);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn requests_that_are_too_large_too_slow_or_malformed_are_refused() {
    let simulator = Simulator::start().await.unwrap();
    let more = [
        ("GATEWAY_BODY_LIMIT", "1000"),
        ("GATEWAY_HEAD_TIMEOUT", "1s"),
    ];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let many = "x: y\r\n".repeat(200);
    let long = "y".repeat(64 * 1024);
    #[rustfmt::skip]
    let cases = [
        (format!("TRACE /api/x {head}\r\n"), "405"),
        (format!("CONNECT a.example:443 {head}\r\n"), "403"),
        (format!("CONNECT localhost:443 {head}\r\n"), "404"),
        (format!("GET /api/x {head}{many}\r\n"), "431"),
        (format!("GET /api/x {head}x: {long}\r\n\r\n"), "431"),
        (format!("POST /api/x {head}content-length: 1001\r\n\r\n"), "413"),
        ("GET /api/x HTTP/1.1\r\nhost: evil\r\n\r\n".into(), "403"),
        ("GET /api/x HTTP/1.1\r\n\r\n".into(), "403"),
        (format!("GET /api/x {head}host: evil\r\n\r\n"), "403"),
        (format!("GET /api/x {head}origin: http://evil\r\n\r\n"), "403"),
        (format!("GET /api/{long} {head}\r\n"), "4"),
        (format!("OPTIONS * {head}\r\n"), "40"),
        (format!("GET /api/x {head}via: 1.0 a, 1.1 officernd-gateway\r\n\r\n"), "508"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), ""),
    ];
    for (request, status) in cases {
        let answer = gateway.raw(&request).await;
        let start = request.lines().next().unwrap_or_default();
        let code = answer.split(' ').nth(1).unwrap_or_default();
        assert!(
            code.starts_with(status) && (!status.is_empty() || code.is_empty() || code == "408"),
            "{start}: {answer}"
        );
    }
    // A head that arrives slowly and never ends.
    let mut slow = gateway.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
        .await
        .unwrap();
    within(async {
        while slow.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    // A body without a length, until it is too long.
    let mut client = connection(&gateway).await;
    let (mut send, body) = Channel::<Bytes>::new(1);
    let request =
        Request::post("/api/v2/organizations/simulated-org/x").header("host", "localhost");
    let response = tokio::spawn(client.send_request(request.body(body.boxed()).unwrap()));
    for _ in 0..3 {
        let _ = send.send_data(vec![b'x'; 500].into()).await;
    }
    let response = within(response).await.unwrap();
    assert_eq!(response.unwrap().status(), 413);
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
}
