//! The gateway example, as a process of its own: this binary runs it, and the
//! load generator, by running itself again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test says what must hold, by a stopwatch"
)]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, channel::Channel};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use officernd_auth::testing::{Fault, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

#[path = "../examples/gateway/main.rs"]
mod gateway;

const ROLE: &str = "TEST_ROLE_OF_THIS_PROCESS";
const TARGET: &str = "TEST_TARGET_OF_THE_LOAD";
const LOCATIONS: &str = "/api/v2/organizations/simulated-org/locations";

/// Not a test: what this binary is when it runs itself.
#[test]
fn another_process() {
    match std::env::var(ROLE).as_deref() {
        Ok("gateway") => {
            let ended = format!("{:?}", gateway::main());
            assert_eq!(ended, format!("{:?}", std::process::ExitCode::SUCCESS));
        }
        Ok("load") => load(),
        _ => {}
    }
}

fn myself(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "another_process", "--nocapture"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Its log; a test looks at what it answers.
        .stderr(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OFFICERND_") || name.starts_with("GATEWAY_") {
            command.env_remove(name);
        }
    }
    command.env(ROLE, role);
    command
}

struct Gateway {
    child: Child,
    addr: SocketAddr,
    /// Kept, so that the gateway can go on writing.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Gateway {
    /// Over this simulator; the API is at `upstream`, or the simulator's own.
    fn start(simulator: &Simulator, upstream: &str, more: &[(&str, &str)]) -> Self {
        let mut command = myself("gateway");
        command
            .env("OFFICERND_CLIENT_ID", simulator.client_id())
            .env("OFFICERND_CLIENT_SECRET", simulator.client_secret())
            .env("OFFICERND_SCOPES", "officernd.api.read")
            .env("OFFICERND_TOKEN_URL", simulator.token_url())
            .env("GATEWAY_UPSTREAM", upstream)
            .envs(more.iter().copied());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .env("GATEWAY_LISTEN", "127.0.0.1:0")
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let addr = loop {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "no gateway");
            if let Some((_, addr)) = line.trim_end().split_once("listening on http://") {
                break addr.parse().unwrap();
            }
        };
        Self {
            child,
            addr,
            _stdout: stdout,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = reqwest::get(self.url(path)).await.unwrap();
        let status = response.status();
        (status, response.text().await.unwrap())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        within(async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let bound = Duration::from_secs(30);
    tokio::time::timeout(bound, what).await.expect("in time")
}

/// An API that does as a test says, over hyper.
async fn upstream<F, Fut>(answer: F) -> String
where
    F: Fn(Request<hyper::body::Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(request);
                    async { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn it_runs_against_the_simulator_with_nothing_set() {
    let mut gateway = Gateway::spawn(myself("gateway"));
    assert_eq!(gateway.get("/healthz").await.0, 200);
    within(async {
        while gateway.get("/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (status, body) = gateway.get("/readyz").await;
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status.as_u16(), &ready["phase"]), (200, &"fresh".into()));
    let (status, body) = gateway.get(LOCATIONS).await;
    assert_eq!(status, 200);
    assert!(body.contains("Main Street"));

    let (_, metrics) = gateway.get("/metrics").await;
    for line in [
        "officernd_auth_requests_total{outcome=\"hit\"} 1",
        "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"ok\"} 1",
        "# TYPE officernd_auth_wait_seconds",
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\"} 1",
    ] {
        // A histogram that nobody told anything is not shown.
        assert!(metrics.contains(line) || line.contains("wait"), "{metrics}");
    }
    assert_eq!(gateway.get("/nothing").await.0, 404);
    gateway.terminate();
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn what_belongs_to_one_hop_stays_there_and_the_token_is_put_on() {
    let simulator = Simulator::start().await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel::<(String, HeaderMap)>();
    let api = upstream(move |request: Request<hyper::body::Incoming>| {
        let uri = request.uri().to_string();
        tell.send((uri, request.headers().clone())).unwrap();
        let response = Response::builder()
            .header("connection", "x-theirs")
            .header("x-theirs", "1")
            .header("keep-alive", "timeout=5")
            .header("set-cookie", "a=b")
            .header("x-total", "7");
        async { response.body(Body::from("done")).unwrap() }
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    let response = reqwest::Client::new()
        .get(gateway.url("/api/v2/a%2Fb?x=%20&y"))
        .header("authorization", "Basic bWU6aHVudGVyMg==")
        .header("connection", "keep-alive, X-Mine ,,")
        .header("x-mine", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic x")
        .header("cookie", "other=program")
        .header("x-end-to-end", "1")
        .send()
        .await
        .unwrap();
    let (uri, there) = told.recv().await.unwrap();
    assert_eq!(uri, "/api/v2/a%2Fb?x=%20&y");
    let names: Vec<&str> = there.keys().map(|name| name.as_str()).collect();
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "te",
        "proxy-authorization",
        "cookie",
    ] {
        assert!(!names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(there["x-end-to-end"], "1");
    assert_eq!(there["via"], "1.1 officernd-gateway");
    let token = there["authorization"].to_str().unwrap();
    assert!(token.starts_with("Bearer "), "{token}");
    assert_eq!(there.get_all("authorization").iter().count(), 1);
    assert_eq!(there["host"], api.trim_start_matches("http://"));

    assert_eq!(response.status(), 200);
    for name in ["x-theirs", "keep-alive", "set-cookie", "connection"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(response.headers()["x-total"], "7");
    assert_eq!(response.text().await.unwrap(), "done");
}

/// A connection of our own, to send what reqwest would not.
async fn connection(
    gateway: &Gateway,
) -> http1::SendRequest<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>> {
    let stream = TokioIo::new(gateway.connect().await);
    let (client, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let simulator = Simulator::start().await.unwrap();
    let api = upstream(|request| async { Response::new(Body::new(request.into_body())) }).await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    let mut client = connection(&gateway).await;
    let (mut send, body) = Channel::<Bytes>::new(1);
    let request = Request::post("/api/echo")
        .header("host", "localhost")
        .body(body.boxed())
        .unwrap();
    let response = tokio::spawn(client.send_request(request));
    send.send_data("ping 0".into()).await.unwrap();
    let mut echo = within(response).await.unwrap().unwrap().into_body();
    for n in 1..20 {
        let frame = within(echo.frame()).await.unwrap().unwrap();
        // It came back before the next was sent.
        assert_eq!(frame.into_data().unwrap(), format!("ping {}", n - 1));
        send.send_data(format!("ping {n}").into()).await.unwrap();
    }
    drop(send);
    assert_eq!(
        within(echo.collect()).await.unwrap().to_bytes(),
        Bytes::from("ping 19")
    );
}

#[tokio::test]
async fn a_401_is_cured_for_requests_without_a_body() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    simulator.revoke_all();
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    assert_eq!(simulator.api_unauthorized(), 1);
    assert_eq!(simulator.token_requests(), 2);
}

#[tokio::test]
async fn without_a_token_it_says_so_and_when_to_come_again() {
    let simulator = Simulator::start().await.unwrap();
    let refusal = Fault::json(400, r#"{"error":"invalid_scope"}"#);
    simulator.token_faults().always(refusal);
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let response = reqwest::get(gateway.url(LOCATIONS)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(gateway.get("/readyz").await.0, 503);
    assert_eq!(gateway.get("/healthz").await.0, 200);
    let response = reqwest::get(gateway.url(LOCATIONS)).await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(simulator.api_requests(), 0);
}

#[tokio::test]
async fn other_sites_pages_and_other_names_are_turned_away() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let client = reqwest::Client::new();
    let own = gateway.url("");
    for (name, value, expected) in [
        ("host", "evil.example", 403),
        ("host", "localhost.evil.example:80", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("origin", own.as_str(), 200),
        ("sec-fetch-site", "same-origin", 200),
        ("host", "localhost", 200),
    ] {
        let request = client.get(gateway.url(LOCATIONS)).header(name, value);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, expected, "{name}: {value}");
    }
}

/// What a raw request is answered first.
async fn raw(gateway: &Gateway, request: &str) -> String {
    let mut stream = gateway.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut line = vec![0; 64];
    let read = within(stream.read(&mut line)).await.unwrap_or(0);
    String::from_utf8_lossy(&line[..read]).into_owned()
}

#[tokio::test]
async fn what_is_too_large_or_too_clever_is_refused() {
    let simulator = Simulator::start().await.unwrap();
    let more = [
        ("GATEWAY_BODY_LIMIT", "1000"),
        ("GATEWAY_HEAD_SECONDS", "1"),
    ];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    let head = "HTTP/1.1\r\nhost: localhost\r\n";
    let many = "x: y\r\n".repeat(200);
    let long = "y".repeat(64 * 1024);
    for (request, status) in [
        (format!("GET /api/../x {head}\r\n"), "400"),
        (format!("GET /api/%2E%2e/x {head}\r\n"), "400"),
        (format!("TRACE /api/x {head}\r\n"), "405"),
        (format!("CONNECT a.example:443 {head}\r\n"), "404"),
        (format!("GET /api/x {head}{many}\r\n"), "431"),
        (format!("GET /api/x {head}x: {long}\r\n\r\n"), "431"),
        (
            format!("POST /api/x {head}content-length: 1001\r\n\r\n"),
            "413",
        ),
        ("GET /api/x HTTP/1.1\r\nhost: evil\r\n\r\n".into(), "403"),
        // A head that never ends.
        (format!("GET /api/x {head}"), ""),
    ] {
        let answer = raw(&gateway, &request).await;
        let start = request.lines().next().unwrap_or_default();
        let code = answer.split(' ').nth(1).unwrap_or_default();
        assert!(
            code == status || (status.is_empty() && code == "408"),
            "{start}: {answer}"
        );
    }
    // One that does not say how long it is, until it is too long.
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

#[tokio::test]
async fn a_slow_client_gets_all_of_it_and_holds_nobody_up() {
    const SIZE: usize = 8 << 20;
    let simulator = Simulator::start().await.unwrap();
    let api = upstream(|request| async move {
        let size = if request.uri().path() == "/api/big" {
            SIZE
        } else {
            2
        };
        let chunks = (0..size.div_ceil(8192)).map(move |n| {
            let chunk = vec![b'x'; 8192.min(size - n * 8192)];
            Ok::<_, std::convert::Infallible>(Bytes::from(chunk))
        });
        Response::new(Body::from_stream(stream::iter(chunks)))
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    let mut slow = gateway.connect().await;
    let request = "GET /api/big HTTP/1.0\r\nhost: localhost\r\n\r\n";
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut read = 0;
    let mut buffer = vec![0; 256 * 1024];
    for n in 0.. {
        match within(slow.read(&mut buffer)).await.unwrap() {
            0 => break,
            some => read += some,
        }
        // Slow at first, so that every buffer on the way is full.
        if n < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let quick = Instant::now();
            assert_eq!(
                gateway.get("/api/small").await,
                (StatusCode::OK, "xx".into())
            );
            assert!(quick.elapsed() < Duration::from_secs(2));
        }
    }
    assert!(read > SIZE && read < SIZE + 1000, "{read} of {SIZE} bytes");
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_takes_its_upstream_request_along() {
    let simulator = Simulator::start().await.unwrap();
    let gone = Arc::new(Notify::new());
    let tell = Arc::clone(&gone);
    let api = upstream(move |request: Request<hyper::body::Incoming>| {
        let tell = Arc::clone(&tell);
        async move {
            match request.uri().path() {
                // Reads until the sender breaks off.
                "/api/up" => {
                    assert!(request.into_body().collect().await.is_err());
                    tell.notify_one();
                    Response::default()
                }
                // Sends until the reader breaks off.
                "/api/down" => {
                    struct Tell(Arc<Notify>);
                    impl Drop for Tell {
                        fn drop(&mut self) {
                            self.0.notify_one();
                        }
                    }
                    let guard = Tell(tell);
                    Response::new(Body::from_stream(stream::repeat_with(move || {
                        let _ = &guard;
                        Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 8192]))
                    })))
                }
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
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(client);
        within(gone.notified()).await;
        assert_eq!(gateway.get("/api/ok").await.0, 200);
    }
}

#[tokio::test]
async fn an_upstream_that_resets_is_a_502_or_a_body_cut_short() {
    let simulator = Simulator::start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let answer: &[u8] = match head.split(' ').nth(1) {
                Some("/api/half") => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
                Some("/api/chunk") => {
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
                }
                Some("/api/garbage") => b"this is not HTTP\r\n\r\n",
                Some("/api/ok") => {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
                }
                _ => b"",
            };
            stream.write_all(answer).await.unwrap();
            // Unread data makes the close a reset.
            drop(stream);
        }
    });
    let gateway = Gateway::start(&simulator, &api, &[]);
    for _ in 0..5 {
        assert_eq!(gateway.get("/api/reset").await.0, 502);
        assert_eq!(gateway.get("/api/garbage").await.0, 502);
        for cut in ["/api/half", "/api/chunk"] {
            let response = reqwest::get(gateway.url(cut)).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.is_err(), "{cut} looks whole");
        }
        assert_eq!(gateway.get("/api/ok").await, (StatusCode::OK, "ok".into()));
    }
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", nowhere.local_addr().unwrap());
    drop(nowhere);
    let gateway = Gateway::start(&simulator, &api, &[]);
    assert_eq!(gateway.get("/api/ok").await.0, 502);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_504() {
    let simulator = Simulator::start().await.unwrap();
    simulator.api_faults().always(Fault::Hang);
    let more = [("GATEWAY_TIMEOUT_SECONDS", "1")];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    assert_eq!(gateway.get(LOCATIONS).await.0, 504);
}

const CONNECTIONS: usize = 200;
const REQUESTS: usize = 10_000;

/// The load generator: 10,000 requests over 200 connections, or as many as are
/// answered before the gateway leaves. Prints one line of figures.
fn load() {
    let addr: SocketAddr = std::env::var(TARGET).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut took = Vec::with_capacity(REQUESTS);
    let (mut lost, mut other) = (0, 0);
    runtime.block_on(async {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| tokio::spawn(one_client(addr, Arc::clone(&sent))))
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
    });
    let all = started.elapsed();
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

/// Connections, one after the other, until all is sent or nobody listens. A
/// request that was sent and not answered is `None`.
async fn one_client(
    addr: SocketAddr,
    sent: Arc<AtomicUsize>,
) -> Vec<(Option<StatusCode>, Duration)> {
    let mut seen = Vec::new();
    'connect: loop {
        let Ok(stream) = TcpStream::connect(addr).await else {
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
            let body = if nth % 10 == 0 {
                Bytes::from(vec![b'x'; 4096])
            } else {
                Bytes::new()
            };
            let method = if nth % 10 == 0 {
                Method::POST
            } else {
                Method::GET
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
            let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
            let status = answer.unwrap_or(None);
            seen.push((status, started.elapsed()));
            if status.is_none() {
                continue 'connect;
            }
        }
    }
}

fn start_load(gateway: &Gateway) -> Child {
    let mut command = myself("load");
    command
        .env(TARGET, gateway.addr.to_string())
        .spawn()
        .unwrap()
}

async fn figures(load: Child) -> String {
    let output = tokio::task::spawn_blocking(|| load.wait_with_output());
    let output = tokio::time::timeout(Duration::from_secs(120), output);
    let output = output.await.unwrap().unwrap().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let from = text.find("load: ").unwrap();
    text[from..].lines().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_over_two_hundred_connections_are_all_answered() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let figures = figures(start_load(&gateway)).await;
    println!("{figures}");
    let good = format!("load: {REQUESTS} answered 200, 0 otherwise, 0 lost");
    assert!(figures.starts_with(&good), "{figures}");
    assert_eq!(simulator.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_no_request_in_flight() {
    const IN_FLIGHT: usize = 50;
    let simulator = Simulator::start().await.unwrap();
    simulator
        .api_faults()
        .always(Fault::Delay(Duration::from_secs(2)));
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let calls: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(reqwest::get(gateway.url(LOCATIONS))))
        .collect();
    within(async {
        while simulator.api_requests() < IN_FLIGHT as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // One that is on its way but not all there, and a stream that never ends.
    let mut late = gateway.connect().await;
    late.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc")
        .await
        .unwrap();
    let events = reqwest::get(gateway.url("/events")).await.unwrap();
    gateway.terminate();
    tokio::time::sleep(Duration::from_millis(200)).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_sent() {
    let simulator = Simulator::start().await.unwrap();
    let mut gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let load = start_load(&gateway);
    within(async {
        while simulator.api_requests() < 1_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    let figures = figures(load).await;
    println!("{figures}");
    assert!(figures.contains(" 0 otherwise, 0 lost"), "{figures}");
    assert!(simulator.api_requests() < REQUESTS as u64, "left too late");
}

/// A headless Chromium, spoken to over its debugging pipe.
struct Browser {
    child: tokio::process::Child,
    profile: PathBuf,
    said: tokio::io::BufReader<tokio::process::ChildStdout>,
    session: Value,
    asked: u64,
}

impl Browser {
    async fn open(url: &str) -> Option<Self> {
        let chromium = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok())?;
        let profile = std::env::temp_dir().join(format!("gateway-page-{}", std::process::id()));
        // The pipe is its descriptors 3 and 4.
        let mut child = tokio::process::Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>&1",
                chromium,
            ])
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut browser = Self {
            said: tokio::io::BufReader::new(child.stdout.take().unwrap()),
            child,
            profile,
            session: Value::Null,
            asked: 0,
        };
        let target = browser
            .ask("Target.createTarget", json!({ "url": url }))
            .await;
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", target).await;
        browser.session = session["sessionId"].clone();
        Some(browser)
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&bytes).await.unwrap();
        loop {
            let mut answer = Vec::new();
            within(self.said.read_until(0, &mut answer)).await.unwrap();
            assert_eq!(answer.pop(), Some(0), "Chromium is gone");
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    async fn evaluate(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "returnByValue": true });
        self.ask("Runtime.evaluate", params).await["result"]["value"].take()
    }

    /// Waits until a script says true.
    async fn until(&mut self, script: &str) {
        let started = Instant::now();
        while self.evaluate(script).await != true {
            assert!(started.elapsed() < Duration::from_secs(30), "not: {script}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_follows_the_token_in_a_browser() {
    let simulator = Simulator::builder()
        .token_life(Duration::from_secs(600))
        .start()
        .await
        .unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let Some(mut browser) = Browser::open(&gateway.url("/")).await else {
        println!("skipped: no Chromium here");
        return;
    };
    let shows = |id: &str, text: &str| {
        let text = Value::from(text);
        format!("document.getElementById('{id}')?.textContent === {text}")
    };
    browser.until(&shows("phase", "fresh")).await;
    browser.until(&shows("left-of", "left of 10 min")).await;
    browser.until(&shows("used", "1")).await;
    let width = "parseFloat(document.getElementById('life').style.width)";
    let before = browser.evaluate(width).await.as_f64().unwrap();
    browser.until(&format!("{width} < {before} - 0.1")).await;

    for path in [LOCATIONS, LOCATIONS, LOCATIONS, "/api/v2/nothing"] {
        gateway.get(path).await;
    }
    browser.until(&shows("total", "4")).await;
    let bars = "document.querySelectorAll('#requests rect').length > 2";
    browser.until(bars).await;

    // What happens to the token is told without a reload.
    simulator.revoke_all();
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    browser.until(&shows("generation", "number 2")).await;
    browser
        .until("document.body.textContent.includes('rejected')")
        .await;
    simulator.api_faults().always(Fault::Reset);
    assert_eq!(gateway.get(LOCATIONS).await.0, 502);
    let error = "document.getElementById('error-text').textContent.includes('broke off')";
    browser.until(error).await;
    let page = browser.evaluate("document.documentElement.outerHTML").await;
    assert!(!page.as_str().unwrap().contains("Bearer"));
}

#[tokio::test]
async fn the_page_is_whole_in_itself() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let response = reqwest::get(gateway.url("/")).await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str();
    assert!(policy.unwrap().starts_with("default-src 'none'"));
    let page = response.text().await.unwrap();
    for outside in ["https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let mut command = myself("gateway");
    let output = command
        .env("GATEWAY_LISTEN", "0.0.0.0:0")
        .stderr(Stdio::piped());
    let output = output.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
}
