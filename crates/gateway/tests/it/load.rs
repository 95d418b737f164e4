//! Ten thousand requests over two hundred connections, from a second process.

use std::net::SocketAddr;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use officernd_simulator::Simulator;
use tokio::net::TcpStream;

use crate::child::{BOUND, Gateway, LOCATIONS, load_generator};

const TARGET: &str = "TEST_TARGET_OF_THE_LOAD";

const CONNECTIONS: usize = 200;
pub(crate) const REQUESTS: usize = 10_000;

/// The load process: 10,000 requests over 200 connections, or as many as are
/// answered before the gateway leaves. Prints one line of figures.
pub(crate) fn generate() {
    let addr: SocketAddr = std::env::var(TARGET).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let mut took = Vec::with_capacity(REQUESTS);
    let (mut lost, mut other) = (0, 0);
    let all = runtime.block_on(async {
        // All are connected before the first asks.
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(TcpStream::connect(addr).await.unwrap());
        }
        let started = Instant::now();
        let clients: Vec<_> = streams
            .into_iter()
            .map(|stream| tokio::spawn(one_client(addr, stream, Arc::clone(&sent))))
            .collect();
        for client in clients {
            for (status, time) in client.await.unwrap() {
                match status {
                    Some(StatusCode::OK) => took.push(time),
                    Some(_) => other += 1,
                    None => lost += 1,
                }
            }
        }
        started.elapsed()
    });
    took.sort_unstable();
    let at = |share: f64| {
        let index = (took.len() as f64 * share) as usize;
        took.get(index.min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    println!(
        "load: {} answered 200, {other} otherwise, {lost} lost; {:.2} s, {:.0} requests/s; p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
        took.len(),
        all.as_secs_f64(),
        took.len() as f64 / all.as_secs_f64(),
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        at(1.0).as_secs_f64() * 1e3,
    );
}

/// Connections, one after the other, until all is sent or the port is closed. A
/// request that was sent and not answered is `None`.
async fn one_client(
    addr: SocketAddr,
    stream: TcpStream,
    sent: Arc<AtomicUsize>,
) -> Vec<(Option<StatusCode>, Duration)> {
    let mut seen = Vec::new();
    let mut first = Some(stream);
    'connect: loop {
        let stream = match first.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect(addr).await,
        };
        let Ok(stream) = stream else {
            return seen;
        };
        let Ok((mut client, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            return seen;
        };
        tokio::spawn(connection);
        loop {
            // Closed between two requests: nothing was lost.
            if client.ready().await.is_err() {
                continue 'connect;
            }
            let nth = sent.fetch_add(1, Ordering::Relaxed);
            if nth >= REQUESTS {
                return seen;
            }
            let (method, body) = match nth % 10 {
                0 => (Method::POST, Bytes::from(vec![b'x'; 4096])),
                _ => (Method::GET, Bytes::new()),
            };
            let request = Request::builder()
                .method(method)
                .uri(LOCATIONS)
                .header("host", "localhost");
            let request = request.body(Full::new(body)).unwrap();
            let started = Instant::now();
            let answer = async {
                let response = client.send_request(request).await.ok()?;
                let status = response.status();
                response.into_body().collect().await.ok()?;
                Some(status)
            };
            let answer = tokio::time::timeout(BOUND, answer).await;
            let status = answer.unwrap_or(None);
            seen.push((status, started.elapsed()));
            if status.is_none() {
                continue 'connect;
            }
        }
    }
}

pub(crate) fn start(gateway: &Gateway) -> Child {
    let mut command = load_generator();
    command
        .env(TARGET, gateway.addr.to_string())
        .spawn()
        .unwrap()
}

pub(crate) async fn figures(load: Child) -> String {
    let output = tokio::task::spawn_blocking(|| load.wait_with_output());
    let output = tokio::time::timeout(4 * BOUND, output);
    let output = output.await.unwrap().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let from = text.find("load: ").unwrap();
    text[from..].lines().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_over_two_hundred_connections_are_all_answered() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let figures = figures(start(&gateway)).await;
    println!("{figures}; {} token requests", simulator.token_requests());
    let good = format!("load: {REQUESTS} answered 200, 0 otherwise, 0 lost");
    assert!(figures.starts_with(&good), "{figures}");
    assert_eq!(simulator.token_requests(), 1);
}
