//! OfficeRnD's API on this machine, with the token put on: for programs that
//! are not written in Rust.
//!
//! ```sh
//! cargo run -p officernd-gateway                      # against a simulator
//! curl http://127.0.0.1:8080/api/v2/organizations/simulated-org/locations
//! open http://127.0.0.1:8080/                         # what it is doing
//! ```
//!
//! With `OFFICERND_CLIENT_ID` set it asks the real service; `GATEWAY_CONFIG`
//! names a TOML file of `officernd_auth::config::Settings`, and every setting
//! can be a variable too (`OFFICERND_REFRESH_AHEAD=10m`). [`Options`] are the
//! gateway's own. It runs until SIGTERM or ctrl-c; with `GATEWAY_CHECK=true` it
//! asks each of its routes once, and ends.
//!
//! It lends the token to whoever reaches it. So it listens on loopback only,
//! answers to loopback names only (a web page cannot rebind its own name to
//! it), and refuses what a browser sends from another site.

#![expect(
    clippy::disallowed_methods,
    reason = "measures requests, not the life of a token"
)]

mod access;
mod check;
mod dashboard;
mod hop_by_hop;
mod options;
mod page;
mod proxy;
mod serve;
mod write_timeout;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use officernd_auth::{BoxError, HttpTokenProvider, TokenCache};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, ResponseBodyTimeoutLayer, TimeoutLayer};

use options::Options;

/// How many pages are fed at once: none takes a place from those who work.
const WATCHERS: usize = 16;

#[derive(Clone)]
struct App {
    cache: TokenCache,
    board: Arc<dashboard::Dashboard>,
    metrics: PrometheusHandle,
    /// Places for those who watch the page.
    watchers: Arc<Semaphore>,
    /// SIGTERM has come.
    leaving: Arc<AtomicBool>,
    /// … and the last streams are to end.
    ended: watch::Receiver<bool>,
}

#[tokio::main]
async fn main() -> ExitCode {
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
    let options = Options::read()?;
    let (mut settings, upstream, simulator) = options.rest().await?;
    settings.allow_origins.push(upstream.to_string());
    // A gateway replaces its callers' credentials, and is ready when asked.
    settings.if_not_present = false;
    settings.keep_warm = true;

    let metrics = prometheus()?;
    let board = Arc::new(dashboard::Dashboard::new(&settings));
    let provider = HttpTokenProvider::new(settings.credentials()?)?;
    let provider = dashboard::Watched::new(provider, Arc::clone(&board));
    let layer = settings.builder(provider).build()?;
    let (end, ended) = watch::channel(false);
    let app = App {
        cache: layer.cache().clone(),
        board: Arc::clone(&board),
        metrics,
        watchers: Arc::new(Semaphore::new(WATCHERS)),
        leaving: Arc::default(),
        ended,
    };
    let proxy = proxy::Proxy::new(layer, upstream.clone(), board)?;
    let listener = TcpListener::bind(options.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let simulated = simulator.is_some();
    tracing::info!(%upstream, simulated, "gateway to");
    writeln!(std::io::stdout(), "listening on {url}")?;

    let router = router(&options, app.clone(), proxy);
    let leave = async {
        match options.check {
            true => check::check(&url).await,
            false => serve::told_to_leave().await,
        }
    };
    let served = serve::serve(&options, listener, router, &app, end, leave).await;
    drop(simulator);
    served
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
    officernd_auth::observability::describe_metrics();
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
    let timeout = Duration::from_secs(options.timeout_seconds.into());
    let still = Duration::from_secs(options.body_seconds.into());
    let api = Router::new()
        .route("/api/{*path}", any(proxy::forward))
        .with_state(proxy.clone())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            timeout,
        ))
        .layer(ResponseBodyTimeoutLayer::new(still))
        .layer(RequestBodyTimeoutLayer::new(still))
        .layer(RequestBodyLimitLayer::new(options.body_limit))
        .layer(from_fn_with_state(proxy, proxy::observe));
    Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/events", get(page::events))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|State(app): State<App>| async move { app.metrics.render() }),
        )
        .with_state(app.clone())
        .merge(api)
        .layer(from_fn_with_state(app, access::access))
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
