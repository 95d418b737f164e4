//! SIGTERM: nothing that was sent is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use officernd_simulator::{Fault, Simulator};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::child::{Gateway, LOCATIONS, until, upstream, within};
use crate::forward::connection;

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
    // One that is on its way but not all there.
    let mut late = gateway.connect().await;
    let head = format!("GET {LOCATIONS} HTTP/1.1\r\nhost: loc");
    late.write_all(head.as_bytes()).await.unwrap();
    gateway.terminate();
    until(|| gateway.said().contains("closing idle connections")).await;
    // Probes are answered to the end.
    let (status, ready) = gateway.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(ready.contains("\"shutting_down\":true"), "{ready}");
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
    until(|| gateway.said().contains("closing idle connections")).await;
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

/// Sends requests over one connection after another, until it is told to stop or the port is closed.
/// Returns how many were answered 200, and what the others got; `None` was sent and not answered.
async fn caller(addr: SocketAddr, stop: Arc<AtomicBool>) -> (usize, Vec<Option<StatusCode>>) {
    let (mut served, mut others) = (0, Vec::new());
    while let Ok(stream) = TcpStream::connect(addr).await {
        let Ok((mut client, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            break;
        };
        tokio::spawn(connection);
        // Closed between two requests: nothing was lost.
        while client.ready().await.is_ok() {
            if stop.load(Ordering::Relaxed) {
                return (served, others);
            }
            let request = match served % 10 {
                0 => Request::post(LOCATIONS).body(Full::new(vec![b'x'; 4096].into())),
                _ => Request::get(LOCATIONS).body(Full::<Bytes>::default()),
            };
            let mut request = request.unwrap();
            request
                .headers_mut()
                .insert("host", "localhost".parse().unwrap());
            let answer = async {
                let response = client.send_request(request).await.ok()?;
                let status = response.status();
                response.into_body().collect().await.ok()?;
                Some(status)
            };
            match within(answer).await {
                Some(StatusCode::OK) => served += 1,
                other => others.push(other),
            }
        }
    }
    (served, others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_sigterm_nor_a_stop_of_4_s_loses_a_request_under_load() {
    let simulator = Simulator::start().await.unwrap();
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| tokio::spawn(caller(gateway.addr, Arc::clone(&stop))))
        .collect();
    until(|| simulator.api_requests() >= 200).await;
    gateway.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    gateway.signal("-CONT");
    let before = simulator.api_requests();
    until(|| simulator.api_requests() >= before + 200).await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    // The port is closed: they end by themselves.
    let mut served = 0;
    for caller in callers {
        let (good, others) = within(caller).await.unwrap();
        assert!(others.is_empty(), "{others:?}");
        served += good;
    }
    println!("{served} requests, none lost");
    assert!(served >= 400);
}

#[tokio::test]
async fn an_idle_connection_of_a_caller_is_kept_but_not_of_a_probe() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let mut probe = TcpStream::connect(gateway.admin).await.unwrap();
    probe.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let mut client = connection(&gateway).await;
    for wait in [0, 12] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let request = Request::get(LOCATIONS).header("host", "localhost");
        let request = request.body(Full::<Bytes>::default().boxed()).unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        within(response.into_body().collect()).await.unwrap();
    }
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), probe.read_to_end(&mut answer)).await;
    assert!(
        closed.is_ok(),
        "a head on the admin address has no time limit"
    );
}
