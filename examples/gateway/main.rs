//! OfficeRnD's API on this machine, with the token put on: for programs that
//! are not written in Rust.
//!
//! ```sh
//! cargo run --example gateway --features metrics      # against a simulator
//! curl http://127.0.0.1:8080/api/v2/organizations/simulated-org/locations
//! open http://127.0.0.1:8080/                         # what it is doing
//! ```
//!
//! With `OFFICERND_CLIENT_ID` set it asks the real service; `GATEWAY_CONFIG`
//! names a TOML file of `officernd_auth::config::Settings`, and every setting
//! can be a variable too (`OFFICERND_REFRESH_AHEAD=10m`). [`Options`] are the
//! gateway's own.
//!
//! It lends the token to whoever reaches it. So it listens on loopback only,
//! answers to loopback names only (a web page cannot rebind its own name to
//! it), and refuses what a browser sends from another site.

#![expect(
    clippy::disallowed_methods,
    reason = "a stopwatch, not a token's clock"
)]

mod board;
mod proxy;

use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use officernd_auth::config::Settings;
use officernd_auth::testing::Simulator;
use officernd_auth::{BoxError, HttpTokenProvider, TokenCache};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, ResponseBodyTimeoutLayer, TimeoutLayer};

/// The gateway's own settings: `GATEWAY_LISTEN`, `GATEWAY_TIMEOUT_SECONDS`, …
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// A loopback address.
    listen: SocketAddr,
    /// Where the API is. Default: `https://app.officernd.com`, or the simulator.
    upstream: Option<String>,
    /// Connections at once; more wait to be accepted.
    connections: usize,
    /// How long a request's head may be on its way.
    head_seconds: u64,
    /// How long OfficeRnD may take to begin its answer, a wait for a token
    /// included.
    timeout_seconds: u64,
    /// How long a body, either way, may stand still.
    body_seconds: u64,
    /// A request's body, in bytes.
    body_limit: usize,
    /// How long requests may go on after SIGTERM.
    grace_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            upstream: None,
            connections: 1024,
            head_seconds: 10,
            timeout_seconds: 60,
            body_seconds: 60,
            body_limit: 32 * 1024 * 1024,
            grace_seconds: 25,
        }
    }
}

/// So long after SIGTERM answers say `Connection: close`, and clients that come
/// back on an open connection are served: a connection that is closed under a
/// request on its way would lose it.
const FAREWELL: Duration = Duration::from_millis(500);

/// A request's head: lines, and bytes.
const HEAD_LINES: usize = 100;
const HEAD_BYTES: usize = 32 * 1024;

const OFFICERND: &str = "https://app.officernd.com";

#[derive(Clone)]
struct App {
    cache: TokenCache,
    board: Arc<board::Board>,
    metrics: PrometheusHandle,
    /// SIGTERM has come.
    leaving: Arc<AtomicBool>,
    /// … and the last streams are to end.
    ended: watch::Receiver<bool>,
}

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fail("requests were still in flight when the grace was over"),
        Err(error) => fail(error),
    }
}

fn fail(why: impl Display) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
}

/// Whether every request was served to its end.
async fn run() -> Result<bool, BoxError> {
    let mut options: Options = Figment::from(Env::prefixed("GATEWAY_").ignore(&["config"]))
        .extract()
        .map_err(Box::new)?;
    let (mut settings, simulator) = settings().await?;
    if let Some(simulator) = &simulator {
        options.upstream.get_or_insert(simulator.url().to_owned());
    }
    if !options.listen.ip().is_loopback() {
        return Err(
            "GATEWAY_LISTEN is not a loopback address: whoever reaches the gateway \
                    has the token. Run one beside each program instead."
                .into(),
        );
    }
    let upstream = options.upstream.clone().unwrap_or(OFFICERND.to_owned());
    settings.allow_origins.push(upstream.clone());
    // A gateway replaces its callers' credentials, and is ready when asked.
    settings.if_not_present = false;
    settings.keep_warm = true;

    let metrics = prometheus()?;
    let board = Arc::new(board::Board::new(&settings));
    let provider = HttpTokenProvider::new(settings.credentials()?)?;
    let provider = board::Watched::new(provider, Arc::clone(&board));
    let layer = settings.builder(provider).build()?;
    let (end, ended) = watch::channel(false);
    let app = App {
        cache: layer.cache().clone(),
        board: Arc::clone(&board),
        metrics,
        leaving: Arc::default(),
        ended,
    };
    let proxy = proxy::Proxy::new(layer, &upstream, board)?;
    let listener = TcpListener::bind(options.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tracing::info!(upstream, simulated = simulator.is_some(), "gateway to");
    writeln!(std::io::stdout(), "listening on {url}")?;

    let router = router(&options, app.clone(), proxy);
    let served = serve(&options, listener, router, &app, end).await;
    drop(simulator);
    served
}

/// The settings of the file and the environment; without any, a simulator's.
async fn settings() -> Result<(Settings, Option<Simulator>), BoxError> {
    let mut figment = Figment::new();
    if let Some(file) = std::env::var_os("GATEWAY_CONFIG") {
        figment = figment.merge(Toml::file_exact(file));
    }
    let mut settings: Settings = figment
        .merge(
            Env::prefixed("OFFICERND_")
                .split("__")
                .ignore(&["org_slug"]),
        )
        .extract()
        .map_err(Box::new)?;
    if settings.client_id.is_some() {
        return Ok((settings, None));
    }
    // Two minutes, so that there is something to see.
    let simulator = Simulator::builder()
        .token_life(Duration::from_secs(120))
        .start()
        .await?;
    settings.client_id = Some(simulator.client_id());
    settings.client_secret = Some(simulator.client_secret().into());
    settings.client_secret_file = None;
    settings.scopes = vec![simulator.scope()];
    settings.token_url = Some(simulator.token_url());
    Ok((settings, Some(simulator)))
}

fn prometheus() -> Result<PrometheusHandle, BoxError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full("officernd_auth_token_age_seconds".to_owned()),
            &[60.0, 300.0, 900.0, 1800.0, 2700.0, 3000.0, 3300.0, 3600.0],
        )?
        .set_buckets(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ])?
        .install_recorder()?;
    officernd_auth::describe_metrics();
    proxy::describe_metrics();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_secs(5));
        loop {
            beat.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

fn router(options: &Options, app: App, proxy: proxy::Proxy) -> Router {
    let timeout = Duration::from_secs(options.timeout_seconds);
    let still = Duration::from_secs(options.body_seconds);
    let api = Router::new()
        .route("/api/{*path}", any(proxy::forward))
        .with_state(proxy)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            timeout,
        ))
        .layer(ResponseBodyTimeoutLayer::new(still))
        .layer(RequestBodyTimeoutLayer::new(still))
        .layer(RequestBodyLimitLayer::new(options.body_limit));
    Router::new()
        .route("/", get(board::page))
        .route("/events", get(board::events))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|State(app): State<App>| async move { app.metrics.render() }),
        )
        .with_state(app.clone())
        .merge(api)
        .layer(from_fn_with_state(app, door))
}

/// Ready is: a request would go out with a token now.
async fn ready(State(app): State<App>) -> Response {
    let status = app.cache.status();
    let code = match status.has_token() && !app.leaving.load(Ordering::Relaxed) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(status)).into_response()
}

/// Lets in what this machine's programs send, and sees clients off.
async fn door(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match turned_away(request.headers()) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    };
    if app.leaving.load(Ordering::Relaxed) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// A web page that somebody looks at on this machine can send requests here,
/// and by a name of its own for 127.0.0.1 even read the answers.
fn turned_away(headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST.as_str()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        return Some("this gateway answers to localhost, 127.0.0.1 and [::1] only\n");
    }
    let own = format!("http://{host}");
    let foreign_origin = text(ORIGIN.as_str()).is_some_and(|origin| origin != own);
    let foreign_site =
        text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if foreign_origin || foreign_site {
        return Some("this gateway serves no other site's pages\n");
    }
    None
}

/// Serves until SIGTERM or ctrl-c, then what is in flight.
async fn serve(
    options: &Options,
    listener: TcpListener,
    router: Router,
    app: &App,
    end: watch::Sender<bool>,
) -> Result<bool, BoxError> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(options.head_seconds))
        .max_headers(HEAD_LINES)
        .max_buf_size(HEAD_BYTES);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(options.connections));
    let greet = |stream: TcpStream, place| {
        // Small answers go out at once; if that fails, a little later.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that leaves is no event.
            let _ = connection.await;
            drop(place);
        });
    };

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (Ok((stream, _)), place) = accepted => greet(stream, place.ok()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // Out of file descriptors, most likely: some will come free.
            else => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }

    // Those that the kernel has accepted already are served; the next are
    // refused, before clients are told to go, and come back.
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        greet(TcpStream::from_std(stream)?, None);
    }
    drop(listener);
    tracing::info!(connections = graceful.count(), "leaving");
    app.leaving.store(true, Ordering::Relaxed);
    tokio::time::sleep(FAREWELL).await;
    let _ = end.send(true);
    tracing::info!(connections = graceful.count(), "leaving: the last answers");
    let grace = Duration::from_secs(options.grace_seconds);
    let drained = tokio::time::timeout(grace, graceful.shutdown()).await;
    Ok(drained.is_ok())
}
