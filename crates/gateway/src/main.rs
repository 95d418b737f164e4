//! `officernd-gateway`: a reverse proxy beside a program that adds an OfficeRnD token to the
//! program's requests. README.md is for operators.
//!
//! `main` reads the configuration (`config`), builds the token layers (`apps`) over one HTTP client
//! (`out`), and serves two addresses: the API (`proxy`) to programs on this machine, and health,
//! metrics and the status page (`admin`) to the network.

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
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use apps::Gateway;
use config::{Config, Listen};
use listen::Listener;
use serve::serve;

/// How long responses say `Connection: close` after SIGTERM before idle connections are closed:
/// closing one at once could lose a request that is on its way.
const FAREWELL: Duration = Duration::from_millis(500);

const USAGE: &str = "\
Adds an OfficeRnD token to the requests of programs on this machine.

Usage: officernd-gateway [--config FILE] [COMMAND]

Commands:
  run                serve until SIGTERM, SIGINT or SIGHUP (the default)
  check              test the configuration: connections, token, scopes, organization
  healthcheck        exit with 0 if the running gateway's /healthz responds with 200
  healthcheck ready  the same for /readyz

Options:
  --config FILE      read settings from this TOML file (or from the file in GATEWAY_CONFIG)
  -h, --help
  -V, --version

Environment variables override the file. README.md lists all settings.";

const NO_CREDENTIALS: &str = "\
Set OFFICERND_CLIENT_ID_FILE, OFFICERND_CLIENT_SECRET_FILE and OFFICERND_SCOPES. To try the gateway
without an account, run officernd-simulator and set the variables that it prints.";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut file = None;
    if let Some(at) = arguments.iter().position(|argument| argument == "--config") {
        arguments.remove(at);
        if at == arguments.len() {
            return fail(2, format_args!("--config needs a file\n\n{USAGE}"));
        }
        file = Some(PathBuf::from(arguments.remove(at)));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let with_config = |command: fn(Config) -> ExitCode| match Config::read(file) {
        Ok(config) => command(config),
        Err(problem) => fail(2, problem),
    };
    match arguments.as_slice() {
        ["help" | "--help" | "-h", ..] => {
            say(USAGE);
            ExitCode::SUCCESS
        }
        ["version" | "--version" | "-V", ..] => {
            say(concat!("officernd-gateway ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        [] | ["run"] => with_config(|config| start(config, false)),
        ["check"] => with_config(|config| start(config, true)),
        ["healthcheck"] => with_config(|config| healthcheck::run(config.admin, "/healthz")),
        ["healthcheck", "ready"] => with_config(|config| healthcheck::run(config.admin, "/readyz")),
        unknown => {
            let unknown = unknown.join(" ");
            fail(2, format_args!("unknown command: {unknown}\n\n{USAGE}"))
        }
    }
}

#[tokio::main]
async fn start(config: Config, check: bool) -> ExitCode {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy());
    log.with_writer(std::io::stderr).init();
    // Before the caches, which record metrics as soon as they are built.
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
        Ok(false) => fail(1, "shutdown_timeout elapsed with requests still in flight"),
        Err(error) => fail(1, error),
    }
}

/// Serves until a signal. Returns `true` if every request was then served to its end.
async fn run(gateway: &Arc<Gateway>) -> Result<bool, BoxError> {
    let config = &gateway.config;
    // Before binding: a signal must not leave a socket's file behind.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let api = Listener::bind(&config.listen).await?;
    let admin = Listener::bind(&Listen::Tcp(config.admin)).await?;
    let upstream = config.upstream_text();
    let (api_name, admin_name) = (api.name(), admin.name());
    tracing::info!(upstream, api = api_name, admin = admin_name, "starting");
    say(format_args!("admin on {admin_name}"));
    say(format_args!("listening on {api_name}"));

    // Answers probes as long as the process lives.
    let for_admin = Arc::clone(gateway);
    tokio::spawn(async move {
        let router = admin::router(Arc::clone(&for_admin));
        let never = std::future::pending();
        // Enough for probes, scrapes and a few browsers; none keeps its place while it is idle.
        let (most, head_timeout) = (64, Duration::from_secs(10));
        serve(admin, router, most, head_timeout, &for_admin.config, never).await
    });
    let router = proxy::router(Arc::clone(gateway));
    let most = config.connections.get().into();
    let connections = serve(api, router, most, config.head_timeout, config, stop).await;
    gateway.shutting_down.store(true, Ordering::Relaxed);
    let open = connections.count();
    tracing::info!(open, "shutting down: responses ask callers to disconnect");
    tokio::time::sleep(FAREWELL).await;
    let open = connections.count();
    tracing::info!(open, "shutting down: closing idle connections");
    let drained = tokio::time::timeout(config.shutdown_timeout, connections.shutdown()).await;
    Ok(drained.is_ok())
}

/// Prints a line. Not `println!`, which panics if stdout is closed.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn fail(code: u8, why: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "officernd-gateway: {why}");
    ExitCode::from(code)
}
