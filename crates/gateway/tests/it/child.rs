//! The gateway as a child process, and an API to put behind it.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const LOCATIONS: &str = "/api/v2/organizations/simulated-org/locations";

/// Long enough for a busy machine; a test that needs it all has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, what).await.expect("in time")
}

/// Waits until something is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    within(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The gateway, with nothing of this shell's: no credentials, no proxy, no log
/// level.
pub(crate) fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_officernd-gateway"));
    command
        .env_clear()
        .env("GATEWAY_LISTEN", "127.0.0.1:0")
        .env("GATEWAY_ADMIN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command of the gateway to its end. Returns its exit code, and what it wrote.
pub(crate) async fn output(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within(output).await.unwrap().unwrap();
    let mut said = String::from_utf8(output.stdout).unwrap();
    said.push_str(&String::from_utf8(output.stderr).unwrap());
    (output.status.code(), said)
}

pub(crate) struct Gateway {
    child: Child,
    /// The API's address.
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) http: reqwest::Client,
    said: Arc<Mutex<String>>,
}

impl Gateway {
    /// Over this simulator; the API is at `upstream`, or the simulator's own.
    pub(crate) fn start(simulator: &Simulator, upstream: &str, more: &[(&str, &str)]) -> Self {
        let mut command = gateway();
        command.envs(more.iter().copied());
        Self::over(command, simulator, upstream)
    }

    pub(crate) fn over(mut command: Command, simulator: &Simulator, upstream: &str) -> Self {
        Self::command(&mut command, simulator, upstream);
        Self::spawn(command)
    }

    /// Gives a gateway this simulator's app, and an API.
    pub(crate) fn command(command: &mut Command, simulator: &Simulator, upstream: &str) {
        command
            .envs(simulator.env())
            .env("GATEWAY_UPSTREAM", upstream);
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let said = Arc::default();
        let (report, reports) = mpsc::channel();
        listen(
            child.stdout.take().unwrap(),
            Arc::clone(&said),
            report.clone(),
        );
        listen(child.stderr.take().unwrap(), Arc::clone(&said), report);
        let mut gateway = Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: client(),
            said,
        };
        // One on each line: the API's address is the last.
        gateway.admin = reports.recv_timeout(BOUND).expect("an admin address");
        gateway.addr = reports.recv_timeout(BOUND).expect("a gateway");
        gateway
    }

    /// On the API's address for `/api`, else on the admin address.
    pub(crate) fn url(&self, path: &str) -> String {
        let addr = match path.starts_with("/api") {
            true => self.addr,
            false => self.admin,
        };
        format!("http://{addr}{path}")
    }

    pub(crate) async fn fetch(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.fetch(path).await;
        let status = response.status();
        (status, response.text().await.unwrap())
    }

    /// The metrics, as soon as they have this: a fetch is counted shortly after
    /// its result is there.
    pub(crate) async fn metrics_with(&self, part: &str) -> String {
        within(async {
            loop {
                let (_, metrics) = self.get("/metrics").await;
                if metrics.contains(part) {
                    return metrics;
                }
            }
        })
        .await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// All that a request, sent as it is, is answered until the gateway closes.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // It may be refused, and closed, before all of it is sent.
        let _ = stream.write_all(request.as_ref()).await;
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What it has written so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until(|| self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the gateway said:\n{}", self.said());
        }
    }
}

/// Keeps what a child says, to be shown if the test fails.
fn listen(
    from: impl Read + Send + 'static,
    said: Arc<Mutex<String>>,
    address: mpsc::Sender<SocketAddr>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
            drop(said);
            // A Unix socket has no port to wait for.
            let no_port = SocketAddr::from(([127, 0, 0, 1], 0));
            if let Some(addr) = line.strip_prefix("admin on http://") {
                let _ = address.send(addr.parse().unwrap());
            } else if let Some(addr) = line.strip_prefix("listening on ") {
                let addr = addr.strip_prefix("http://");
                let _ = address.send(addr.map_or(no_port, |addr| addr.parse().unwrap()));
            }
        }
    });
}

/// A client that this machine's proxy settings are nothing to.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(BOUND)
        .build()
        .unwrap()
}

/// An API that does as a test says, over hyper.
pub(crate) async fn upstream<F, Fut>(answer: F) -> String
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send,
{
    serve(move |stream| {
        let answer = answer.clone();
        async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// An API that answers these bytes to a path, and resets the connection where a
/// test says so; else it closes it.
pub(crate) async fn raw_upstream(answer: fn(&str) -> (&'static [u8], bool)) -> String {
    serve(move |mut stream| async move {
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (bytes, reset) = answer(path);
        let _ = stream.write_all(bytes).await;
        if reset {
            let linger = Some(Duration::ZERO);
            let _ = socket2::SockRef::from(&stream).set_linger(linger);
        }
    })
    .await
}

pub(crate) async fn serve<F, Fut>(connection: F) -> String
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(connection(stream));
        }
    });
    url
}
