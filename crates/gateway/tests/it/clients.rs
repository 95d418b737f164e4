//! Clients that are slow or leave, and upstreams that break off.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::child::{Gateway, raw_upstream, until, upstream, within};

/// A body without an end, and word of when it was dropped.
fn endless(report: Arc<Notify>) -> Response<Body> {
    struct Report(Arc<Notify>);
    impl Drop for Report {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let guard = Report(report);
    Response::new(Body::from_stream(stream::repeat_with(move || {
        let _ = &guard;
        Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 8192]))
    })))
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_takes_its_upstream_request_along() {
    let simulator = Simulator::start().await.unwrap();
    let gone = Arc::new(Notify::new());
    let here = Arc::new(Notify::new());
    let (report, came) = (Arc::clone(&gone), Arc::clone(&here));
    let api = upstream(move |request: Request<Incoming>| {
        let (report, came) = (Arc::clone(&report), Arc::clone(&came));
        async move {
            match request.uri().path() {
                // Reads until the sender breaks off.
                "/api/up" => {
                    came.notify_one();
                    assert!(request.into_body().collect().await.is_err());
                    report.notify_one();
                    Response::default()
                }
                // Sends until the reader breaks off.
                "/api/down" => endless(report),
                _ => Response::default(),
            }
        }
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    for n in 0..10 {
        let mut client = gateway.connect().await;
        let request = match n % 2 {
            0 => "POST /api/up HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nhalf",
            _ => "GET /api/down HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        client.write_all(request.as_bytes()).await.unwrap();
        if n % 2 == 1 {
            client.read_exact(&mut [0; 4096]).await.unwrap();
        } else {
            within(here.notified()).await;
        }
        drop(client);
        within(gone.notified()).await;
        assert_eq!(gateway.get("/api/ok").await.0, 200);
    }
}

#[tokio::test]
async fn an_upstream_that_resets_is_a_502_or_a_body_cut_short() {
    let simulator = Simulator::start().await.unwrap();
    let api = raw_upstream(|path| match path {
        "/api/half" => (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", false),
        "/api/chunk" => (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            false,
        ),
        "/api/garbage" => (b"this is not HTTP\r\n\r\n", false),
        "/api/ok" => (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
        "/api/close" => (b"", false),
        _ => (b"", true),
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    for _ in 0..5 {
        assert_eq!(gateway.get("/api/reset").await.0, 502);
        assert_eq!(gateway.get("/api/close").await.0, 502);
        assert_eq!(gateway.get("/api/garbage").await.0, 502);
        for cut in ["/api/half", "/api/chunk"] {
            let response = gateway.fetch(cut).await;
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.is_err(), "{cut} looks whole");
            until(|| gateway.said().contains("the response broke off")).await;
        }
        // Closed after the response, without `connection: close`.
        for _ in 0..10 {
            assert_eq!(gateway.get("/api/ok").await, (StatusCode::OK, "ok".into()));
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let simulator = Simulator::start().await.unwrap();
    let gone = Arc::new(Notify::new());
    let report = Arc::clone(&gone);
    let api = upstream(move |_| {
        let answer = endless(Arc::clone(&report));
        async { answer }
    })
    .await;
    let more = [("GATEWAY_BODY_TIMEOUT", "1s")];
    let gateway = Gateway::start(&simulator, &api, &more);
    let mut deaf = gateway.connect().await;
    let request = b"GET /api/down HTTP/1.1\r\nhost: localhost\r\n\r\n";
    deaf.write_all(request).await.unwrap();
    within(gone.notified()).await;
}

#[tokio::test]
async fn a_body_that_stops_on_its_way_is_an_error_either_way() {
    let simulator = Simulator::start().await.unwrap();
    let api = upstream(|request: Request<Incoming>| async move {
        if request.uri().path() == "/api/up" {
            let _ = request.into_body().collect().await;
            return Response::default();
        }
        let some = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from("some"))]);
        Response::new(Body::from_stream(some.chain(stream::pending())))
    })
    .await;
    let more = [("GATEWAY_BODY_TIMEOUT", "1s")];
    let gateway = Gateway::start(&simulator, &api, &more);
    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let up = format!("POST /api/up {head}content-length: 9\r\n\r\nhalf");
    assert!(gateway.raw(up).await.starts_with("HTTP/1.1 408"));
    let mut down = gateway.fetch("/api/down").await;
    assert_eq!(within(down.chunk()).await.unwrap().unwrap(), "some");
    assert!(within(down.chunk()).await.is_err(), "it looks whole");
    let logged =
        |line: &str| line.contains("WARN") && line.contains("the response broke off: data was");
    until(|| gateway.said().lines().any(logged)).await;
}
