//! `officernd-gateway`: a reverse proxy beside a program that puts an OfficeRnD
//! token on the program's requests. README.md is for operators.
//!
//! `main` reads the configuration (`config`), builds the token layers (`apps`)
//! over one client (`out`), and serves two addresses: the API (`proxy`) to this
//! machine's programs, and health, metrics and a page (`admin`) to anyone who may look.

#![expect(
    clippy::disallowed_methods,
    reason = "measures requests, not the life of a token"
)]

mod access;
mod admin;
mod apps;
mod check;
mod config;
mod healthcheck;
mod hop_by_hop;
mod listen;
mod metrics;
mod out;
mod page;
mod problem;
mod proxy;
mod serve;
mod store;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use officernd_auth::BoxError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use apps::Gateway;
use config::Config;
use listen::Listener;
use serve::{Limits, serve};

/// How long after SIGTERM answers say `Connection: close` and open connections
/// are still served: closing one under a request on its way would lose it.
const FAREWELL: Duration = Duration::from_millis(500);

const USAGE: &str = "\
Puts an OfficeRnD token on the requests of programs that have none.

Usage: officernd-gateway [--config FILE] [COMMAND]

Commands:
  run          serve until SIGTERM (the default)
  check        try the configuration: connections, token, scopes, organization
  healthcheck  ask the running gateway's /healthz; `healthcheck ready` asks /readyz

Options:
  --config FILE  a TOML file; GATEWAY_CONFIG names one too
  --help, --version
";

const VERSION: &str = concat!("officernd-gateway ", env!("CARGO_PKG_VERSION"), "\n");

const NO_CREDENTIALS: &str = "\
Set OFFICERND_CLIENT_ID_FILE, OFFICERND_CLIENT_SECRET_FILE and OFFICERND_SCOPES. To try the gateway
without an account, use the environment that officernd-simulator prints.";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let option = words.iter().position(|word| word == "--config");
    let file = option.map(|at| words.drain(at..words.len().min(at + 2)).nth(1));
    if file == Some(None) {
        return fail(2, format_args!("--config needs a file\n\n{USAGE}"));
    }
    let file = file.flatten().map(PathBuf::from);
    let read = |command: fn(Config) -> ExitCode| match Config::read(file) {
        Ok(config) => command(config),
        Err(problem) => fail(2, problem),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["help" | "--help" | "-h", ..] => print(USAGE),
        ["version" | "--version" | "-V", ..] => print(VERSION),
        [] | ["run"] => read(|config| start(config, false)),
        ["check"] => read(|config| start(config, true)),
        ["healthcheck"] => read(|config| healthcheck::run(config.admin, "/healthz")),
        ["healthcheck", "ready"] => read(|config| healthcheck::run(config.admin, "/readyz")),
        words => {
            let words = words.join(" ");
            fail(2, format_args!("unknown command {words}\n\n{USAGE}"))
        }
    }
}

#[tokio::main]
async fn start(config: Config, check: bool) -> ExitCode {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy());
    log.with_writer(std::io::stderr).init();
    // Before the caches, which count from their start.
    let exporter = match metrics::install(&config) {
        Ok(exporter) => exporter,
        Err(error) => return fail(1, error),
    };
    let gateway = match Gateway::new(config, exporter, !check) {
        Ok(gateway) => gateway,
        Err(error) if error.ends_with("is not set") => {
            return fail(2, format_args!("{error}\n\n{NO_CREDENTIALS}"));
        }
        Err(error) => return fail(2, error),
    };
    if check {
        return check::run(&gateway).await;
    }
    match run(&Arc::new(gateway)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fail(1, "shutdown_timeout ended with requests still in flight"),
        Err(error) => fail(1, error),
    }
}

/// Serves until a signal. Returns whether every request was served to its end.
async fn run(gateway: &Arc<Gateway>) -> Result<bool, BoxError> {
    let config = &gateway.config;
    let api_listener = Listener::bind(&config.listen).await?;
    let admin_listener = Listener::tcp(config.admin).await?;
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];

    let api = proxy::router(Arc::clone(gateway));
    let admin = admin::router(Arc::clone(gateway));
    let (api_name, admin_name) = (api_listener.name(), admin_listener.name());
    let upstream = config.upstream_text();
    tracing::info!(upstream, api = api_name, admin = admin_name, "starting");
    let mut out = std::io::stdout();
    writeln!(out, "admin on {admin_name}")?;
    writeln!(out, "listening on {api_name}")?;

    let limits = Limits {
        connections: config.connections.get().into(),
        head_timeout: config.head_timeout,
        write_timeout: config.body_timeout,
    };
    // Probes, scrapes and a few pages.
    let admin_limits = Limits {
        connections: 64,
        head_timeout: Duration::from_secs(10),
        write_timeout: config.body_timeout,
    };
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    let admin = tokio::spawn(serve(admin_listener, admin, admin_limits, async {
        // The sender sends, or this function has returned.
        let _ = admin_stopped.await;
    }));

    let signaled = async {
        let [terminate, interrupt, hangup] = &mut signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let connections = serve(api_listener, api, limits, signaled).await;
    gateway.leaving.store(true, Ordering::Relaxed);
    let open = connections.count();
    tracing::info!(open, "leaving");
    tokio::time::sleep(FAREWELL).await;
    let open = connections.count();
    tracing::info!(open, "leaving: the last answers");
    let drained = tokio::time::timeout(config.shutdown_timeout, connections.shutdown()).await;

    // The receiver may have gone already.
    let _ = stop_admin.send(());
    if let Ok(connections) = admin.await {
        // What is left are probes.
        let _ = tokio::time::timeout(Duration::from_secs(1), connections.shutdown()).await;
    }
    Ok(drained.is_ok())
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, why: impl Display) -> ExitCode {
    // Without a standard error there is nowhere to write.
    let _ = writeln!(std::io::stderr(), "officernd-gateway: {why}");
    ExitCode::from(code)
}
