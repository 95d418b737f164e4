//! More clients than places.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response};
use hyper::body::Incoming;
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::child::{Gateway, LOCATIONS, gateway, upstream, within};

#[tokio::test]
async fn out_of_file_descriptors_it_goes_on_as_soon_as_some_are_free() {
    let simulator = Simulator::start().await.unwrap();
    let mut limited = Command::new("sh");
    let own = gateway();
    limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    limited.arg(own.get_program()).args(own.get_args());
    limited.env_clear();
    for (name, value) in own.get_envs() {
        limited.env(name, value.unwrap());
    }
    limited.stdout(Stdio::piped()).stderr(Stdio::piped());
    let gateway = Gateway::over(limited, &simulator, simulator.url());
    // The token, which a request without a free descriptor could not fetch.
    within(async { while gateway.get("/readyz").await.0 != 200 {} }).await;
    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(gateway.connect().await);
    }
    // As many as there are descriptors for are served; the rest must wait.
    let asked = b"GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut served = 0;
    for stream in &mut crowd {
        let _ = stream.write_all(asked).await;
    }
    for stream in &mut crowd {
        let mut answer = [0; 8];
        let answer = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer));
        match answer.await {
            Ok(Ok(8)) => served += 1,
            _ => break,
        }
    }
    assert!(served < 150, "the limit did not hold");
    drop(crowd);
    // The descriptors are free once the gateway has seen the connections end.
    within(async { while gateway.get(LOCATIONS).await.0 != 200 {} }).await;
}

#[tokio::test]
async fn more_connections_than_places_wait_their_turn() {
    let simulator = Simulator::start().await.unwrap();
    let came = Arc::new(Notify::new());
    let report = Arc::clone(&came);
    let api = upstream(move |request: Request<Incoming>| {
        let report = Arc::clone(&report);
        async move {
            if request.uri().path() == "/api/hang" {
                report.notify_one();
                std::future::pending::<()>().await;
            }
            Response::default()
        }
    })
    .await;
    let more = [("GATEWAY_CONNECTIONS", "1"), ("GATEWAY_HEAD_TIMEOUT", "1s")];
    let gateway = Gateway::start(&simulator, &api, &more);
    let mut stays = gateway.connect().await;
    let request = b"GET /api/hang HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stays.write_all(request).await.unwrap();
    within(came.notified()).await;

    let mut waits = gateway.connect().await;
    let request = b"GET /api/ok HTTP/1.1\r\nhost: localhost\r\n\r\n";
    waits.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    let early = Duration::from_millis(500);
    let early = tokio::time::timeout(early, waits.read_exact(&mut answer)).await;
    assert!(early.is_err(), "served without a place");
    // Probes have places of their own.
    assert_eq!(gateway.get("/healthz").await.0, 200);
    drop(stays);
    within(waits.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // An idle connection gives its place up.
    assert_eq!(gateway.get("/api/ok").await.0, 200);
}
