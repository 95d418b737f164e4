//! SIGTERM: nothing that was sent is lost.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Bytes, Incoming};
use officernd_simulator::{Fault, Simulator};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::child::{Gateway, LOCATIONS, until, upstream, within};
use crate::forward::connection;
use crate::load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_no_request_in_flight() {
    const IN_FLIGHT: usize = 50;
    let simulator = Simulator::start().await.unwrap();
    simulator
        .api_faults()
        .always(Fault::Delay(Duration::from_secs(2)));
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let calls: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(gateway.http.get(gateway.url(LOCATIONS)).send()))
        .collect();
    until(|| simulator.api_requests() == IN_FLIGHT as u64).await;
    // One that is on its way but not all there, and a stream that never ends.
    let mut late = gateway.connect().await;
    let head = format!("GET {LOCATIONS} HTTP/1.1\r\nhost: loc");
    late.write_all(head.as_bytes()).await.unwrap();
    let events = gateway.fetch("/events").await;
    gateway.terminate();
    until(|| gateway.said().contains("the last answers")).await;
    // Probes are answered to the end.
    let (status, ready) = gateway.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(ready.contains("\"leaving\":true"), "{ready}");
    assert_eq!(gateway.get("/healthz").await.0, 200);
    late.write_all(b"alhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(late.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    for call in calls {
        let response = within(call).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.text().await.unwrap().contains("Main Street"));
    }
    assert!(within(events.text()).await.unwrap().contains("\"phase\""));
    assert!(gateway.ended().await.success());
}

/// An API that sends back what it gets, and a caller in the middle of it.
async fn echo(simulator: &Simulator, grace: &str) -> (Gateway, Sender<Bytes>, Response<Incoming>) {
    let api = upstream(|request| async { Response::new(Body::new(request.into_body())) }).await;
    let gateway = Gateway::start(simulator, &api, &[("GATEWAY_SHUTDOWN_TIMEOUT", grace)]);
    let mut client = connection(&gateway).await;
    let (mut send, body) = Channel::<Bytes>::new(1);
    let request = Request::post("/api/echo").header("host", "localhost");
    let response = tokio::spawn(client.send_request(request.body(body.boxed()).unwrap()));
    send.send_data("before".into()).await.unwrap();
    let response = within(response).await.unwrap().unwrap();
    (gateway, send, response)
}

#[tokio::test]
async fn sigterm_waits_for_bodies_on_their_way() {
    let simulator = Simulator::start().await.unwrap();
    let (mut gateway, mut send, response) = echo(&simulator, "25s").await;
    gateway.terminate();
    until(|| gateway.said().contains("the last answers")).await;
    send.send_data(" and after".into()).await.unwrap();
    drop(send);
    let whole = within(response.collect()).await.unwrap().to_bytes();
    assert_eq!(whole, "before and after");
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn what_outlives_the_shutdown_is_cut_off_and_reported() {
    let simulator = Simulator::start().await.unwrap();
    let (mut gateway, _send, response) = echo(&simulator, "1s").await;
    gateway.terminate();
    assert!(!gateway.ended().await.success());
    assert!(within(response.collect()).await.is_err(), "it looks whole");
    until(|| gateway.said().contains("still in flight")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_sent() {
    let simulator = Simulator::start().await.unwrap();
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let load = load::start(&gateway);
    until(|| simulator.api_requests() >= 1_000).await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    let figures = load::figures(load).await;
    println!("{figures}");
    assert!(figures.contains(" 0 otherwise, 0 lost"), "{figures}");
    assert!(
        simulator.api_requests() < load::REQUESTS as u64,
        "left too late"
    );
}
