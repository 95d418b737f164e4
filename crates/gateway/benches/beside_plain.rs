//! What does the gateway cost beside a plain axum reverse proxy without tokens?
//!
//! Both run as processes of their own, before the same API, under the same load
//! from a third process, in alternating rounds. Prints the ratios of throughput
//! and p99, and the memory of both.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints what its stopwatch says"
)]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::header::HOST;
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use officernd_simulator::Simulator;
use tokio::net::{TcpListener, TcpStream};

const ROLE: &str = "BENCH_ROLE";
const ADDRESS: &str = "BENCH_ADDRESS";
const MILLIS: &str = "BENCH_MILLIS";

const CONNECTIONS: usize = 64;

/// An answer of the API's usual size.
const ANSWER_BYTES: usize = 2048;

#[tokio::main(worker_threads = 2)]
async fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("plain") => plain_proxy(std::env::var(ADDRESS).unwrap().parse().unwrap()).await,
        Ok("load") => load(std::env::var(ADDRESS).unwrap().parse().unwrap()).await,
        _ => compare().await,
    }
}

async fn compare() {
    // Under `cargo test` it only shows that it works.
    let (rounds, millis) = match std::env::args().any(|argument| argument == "--bench") {
        true => (7, 3000),
        false => (1, 100),
    };
    let simulator = Simulator::start().await.unwrap();
    let api = api().await;
    let mut plain = Proxy::start(myself("plain", &api.to_string()));
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_officernd-gateway"));
    gateway
        .env_clear()
        .env("GATEWAY_LISTEN", "127.0.0.1:0")
        .env("GATEWAY_ADMIN", "127.0.0.1:0")
        .env("GATEWAY_UPSTREAM", format!("http://{api}"))
        .env("OFFICERND_CLIENT_ID", simulator.client_id())
        .env("OFFICERND_CLIENT_SECRET", simulator.client_secret())
        .env("OFFICERND_SCOPES", "officernd.api.read")
        .env("OFFICERND_TOKEN_URL", simulator.token_url());
    let mut gateway = Proxy::start(gateway);
    println!(
        "idle: plain {} KiB, gateway {} KiB",
        plain.memory(),
        gateway.memory()
    );
    let mut ratios = Vec::new();
    for round in 0..=rounds {
        let base = measure(plain.address, millis).await;
        let ours = measure(gateway.address, millis).await;
        println!("plain    {base}\ngateway  {ours}");
        // The first round warms up.
        if round > 0 || rounds == 1 {
            ratios.push((ours.per_second / base.per_second, ours.p99 / base.p99));
        }
    }
    let throughput = spread(ratios.iter().map(|ratio| ratio.0));
    let p99 = spread(ratios.iter().map(|ratio| ratio.1));
    println!("throughput, gateway to plain: {throughput}");
    println!("p99, gateway to plain: {p99}");
    println!(
        "after the load: plain {} KiB, gateway {} KiB; {} token requests",
        plain.memory(),
        gateway.memory(),
        simulator.token_requests()
    );
    plain.child.kill().unwrap();
    gateway.child.kill().unwrap();
}

fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values[0], values[values.len() - 1]);
    format!(
        "{:.2} (median; {low:.2} to {high:.2})",
        values[values.len() / 2]
    )
}

fn myself(role: &str, address: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).env(ADDRESS, address);
    command
}

struct Proxy {
    child: Child,
    address: SocketAddr,
    // Kept open: a program that prints must not meet a closed pipe.
    _lines: BufReader<std::process::ChildStdout>,
}

impl Proxy {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(address) = line.strip_prefix("listening on http://") {
                break address.trim().parse().unwrap();
            }
        };
        Self {
            child,
            address,
            _lines: lines,
        }
    }

    /// Resident memory.
    fn memory(&mut self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap_or("unknown").to_owned()
    }
}

async fn api() -> SocketAddr {
    let answer = || async { vec![b'x'; ANSWER_BYTES] };
    serve(Router::new().fallback(answer)).await
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The peer: what a reverse proxy in axum is at the least.
async fn plain_proxy(upstream: SocketAddr) {
    type Http = Client<HttpConnector, Body>;
    async fn forward(
        State((http, upstream)): State<(Http, SocketAddr)>,
        mut request: Request,
    ) -> Response {
        let path = request.uri().path_and_query().unwrap().as_str();
        *request.uri_mut() = Uri::try_from(format!("http://{upstream}{path}")).unwrap();
        request.headers_mut().remove(HOST);
        http.request(request).await.unwrap().into_response()
    }
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);
    let router = Router::new().fallback(forward);
    let address = serve(router.with_state((http, upstream))).await;
    println!("listening on http://{address}");
    std::future::pending::<()>().await;
}

struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99) = (self.p50, self.p99);
        write!(
            f,
            "{:.0} requests/s, p50 {p50:.2} ms, p99 {p99:.2} ms",
            self.per_second
        )
    }
}

async fn measure(address: SocketAddr, millis: u64) -> Figures {
    let mut command = myself("load", &address.to_string());
    command.env(MILLIS, millis.to_string());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    Figures {
        per_second: numbers[0],
        p50: numbers[1],
        p99: numbers[2],
    }
}

/// Sends one request after the other on each connection, and prints requests
/// per second, p50 and p99 in milliseconds.
async fn load(address: SocketAddr) {
    let millis: u64 = std::env::var(MILLIS).unwrap().parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        clients.push(client);
    }
    let started = Instant::now();
    let end = started + Duration::from_millis(millis);
    let clients: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let request = hyper::Request::get("/api/v2/organizations/simulated-org/x");
                    let request = request.header("host", "localhost");
                    let request = request.body(Empty::<Bytes>::new()).unwrap();
                    let sent = Instant::now();
                    client.ready().await.unwrap();
                    let response = client.send_request(request).await.unwrap();
                    assert_eq!(response.status(), 200);
                    let body = response.into_body().collect().await.unwrap();
                    assert_eq!(body.to_bytes().len(), ANSWER_BYTES);
                    took.push(sent.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.unwrap());
    }
    let elapsed = started.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e3;
    println!("{} {} {}", took.len() as f64 / elapsed, at(50), at(99));
}
