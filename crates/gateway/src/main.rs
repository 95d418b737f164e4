//! `officernd-gateway`: a reverse proxy beside a program that puts an OfficeRnD
//! token on the program's requests. README.md is for operators.
//!
//! `main` reads the configuration (`config`), builds the token layer (`setup`)
//! and serves two addresses: the API (`proxy`) to this machine's programs, and
//! health, metrics and a page (`admin`) to anyone who may look.

#![expect(
    clippy::disallowed_methods,
    reason = "measures requests, not the life of a token"
)]

mod access;
mod admin;
mod check;
mod command;
mod config;
mod dashboard;
mod healthcheck;
mod hop_by_hop;
mod listen;
mod metrics;
mod page;
mod problem;
mod proxy;
mod recorded;
mod serve;
mod setup;
mod store;
mod tokens;
mod upstream;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use officernd_auth::BoxError;
use tokio::sync::{oneshot, watch};

use admin::Admin;
use command::{Arguments, Command, USAGE};
use config::Config;
use listen::Listener;
use proxy::Proxy;
use serve::{Limits, serve};
use setup::Setup;

/// How long after SIGTERM answers say `Connection: close` and open connections
/// are still served: closing one under a request on its way would lose it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Probes, scrapes and a few pages.
const ADMIN_CONNECTIONS: usize = 64;

/// For answers on the admin address, after the last request of the API.
const ADMIN_SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => return fail(2, format_args!("{problem}\n\n{USAGE}")),
    };
    match arguments.command {
        Command::Help => print(USAGE),
        Command::Version => print(concat!(
            "officernd-gateway ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        Command::Healthcheck { path } => match Config::read_options(arguments.config) {
            Ok(options) => match healthcheck::run(options.admin, path) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => fail(1, problem),
            },
            Err(mistakes) => fail(2, mistakes),
        },
        Command::Run | Command::Check => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .init();
            match Config::read(arguments.config) {
                Ok(config) => start(arguments.command == Command::Check, config),
                Err(mistakes) => fail(2, mistakes),
            }
        }
    }
}

#[tokio::main]
async fn start(check: bool, config: Config) -> ExitCode {
    if check {
        return check::run(config).await;
    }
    match run(config).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fail(
            1,
            "requests were still in flight when shutdown_timeout ended",
        ),
        Err(error) => fail(1, error),
    }
}

/// Serves until a signal. Returns whether every request was served to its end.
async fn run(config: Config) -> Result<bool, BoxError> {
    let options = config.options.clone();
    let has_store = config.store.is_some();
    let exporter = metrics::install()?;
    let setup = Setup::new(config)?;
    metrics::identified(&setup.identity);
    if has_store {
        metrics::count_store_failures();
    }
    let api_listener = Listener::bind(&options.listen).await?;
    let admin_listener = Listener::tcp(options.admin).await?;

    let leaving = Arc::new(AtomicBool::new(false));
    let (end, ended) = watch::channel(false);
    let admin = Admin::new(
        setup.tokens.clone(),
        Arc::clone(&setup.dashboard),
        exporter,
        Arc::clone(&leaving),
        ended,
    );
    let admin = admin.router(options.admin.ip().is_loopback());
    let proxy = Proxy {
        upstream: setup.upstream.clone(),
        origin: setup.origin.clone(),
        dashboard: Arc::clone(&setup.dashboard),
    };
    let api = proxy.router(&options);
    let api = api.layer(from_fn_with_state(
        Arc::clone(&leaving),
        access::close_when_leaving,
    ));

    tracing::info!(
        upstream = setup.identity.upstream,
        api = api_listener.name(),
        admin = admin_listener.name(),
        "starting"
    );
    let mut out = std::io::stdout();
    writeln!(out, "admin on {}", admin_listener.name())?;
    writeln!(out, "listening on {}", api_listener.name())?;

    let limits = Limits {
        connections: options.connections,
        head_timeout: options.head_timeout,
        write_timeout: options.body_timeout,
    };
    let admin_limits = Limits {
        connections: ADMIN_CONNECTIONS,
        ..limits
    };
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    let admin = tokio::spawn(serve(admin_listener, admin, admin_limits, async {
        // The sender sends, or this function has returned.
        let _ = admin_stopped.await;
    }));
    let warm = tokio::spawn(setup.tokens.clone().warm_up());

    let signal = serve::signaled()?;
    let closed = serve(api_listener, api, limits, signal).await;
    tracing::info!(connections = closed.connections(), "leaving");
    leaving.store(true, Ordering::Relaxed);
    tokio::time::sleep(FAREWELL).await;
    tracing::info!(
        connections = closed.connections(),
        "leaving: the last answers"
    );
    let drained = closed.drain(options.shutdown_timeout).await;

    warm.abort();
    // Both receivers may have gone already.
    let _ = end.send(true);
    let _ = stop_admin.send(());
    if let Ok(closed) = admin.await {
        closed.drain(ADMIN_SHUTDOWN).await;
    }
    Ok(drained)
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
