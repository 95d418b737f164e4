//! The gateway's settings: its own, and those of the layer.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Uri;
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use officernd_auth::BoxError;
use officernd_auth::config::Settings;
use officernd_auth::testing::Simulator;
use serde::Deserialize;

const OFFICERND: &str = "https://app.officernd.com";

/// The gateway's own settings: `GATEWAY_LISTEN`, `GATEWAY_TIMEOUT_SECONDS`, …
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// A loopback address.
    pub(crate) listen: SocketAddr,
    /// Where the API is. Default: `https://app.officernd.com`, or the simulator.
    pub(crate) upstream: Option<String>,
    /// Connections at once; more wait to be accepted.
    pub(crate) connections: usize,
    /// How long a request's head may be on its way.
    pub(crate) head_seconds: u32,
    /// How long OfficeRnD may take to begin its answer; the way there of the
    /// request's body and a wait for a token are included.
    pub(crate) timeout_seconds: u32,
    /// How long a body, either way, may stand still, and a caller not read.
    pub(crate) body_seconds: u32,
    /// A request's body, in bytes.
    pub(crate) body_limit: usize,
    /// How long requests may go on after SIGTERM.
    pub(crate) grace_seconds: u32,
    /// Start with a simulator on a free port, ask each route once, and end.
    pub(crate) check: bool,
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
            check: false,
        }
    }
}

impl Options {
    pub(crate) fn read() -> Result<Self, BoxError> {
        let variables = Env::prefixed("GATEWAY_").ignore(&["config"]);
        let mut options: Self = Figment::from(variables).extract().map_err(Box::new)?;
        if options.check {
            options.listen.set_port(0);
        }
        if !options.listen.ip().is_loopback() {
            return Err(
                "GATEWAY_LISTEN is not a loopback address: whoever reaches the gateway \
                        has the token. Run one beside each program instead."
                    .into(),
            );
        }
        if [
            options.head_seconds,
            options.timeout_seconds,
            options.body_seconds,
        ]
        .contains(&0)
        {
            return Err("GATEWAY_…_SECONDS is to be 1 or more: nothing takes no time".into());
        }
        // More connections than that a process has no ports for.
        if !(1..=65_536).contains(&options.connections) {
            return Err("GATEWAY_CONNECTIONS is to be from 1 to 65536".into());
        }
        Ok(options)
    }

    /// The settings of the file and the environment, and where the API is;
    /// without any, a simulator's.
    pub(crate) async fn rest(&self) -> Result<(Settings, Uri, Option<Simulator>), BoxError> {
        let file = std::env::var_os("GATEWAY_CONFIG");
        let mut set_up = file.is_some() || self.upstream.is_some();
        let mut figment = Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let variables = Env::prefixed("OFFICERND_").split("__");
        let figment = figment.merge(variables.ignore(&["org_slug"]));
        let mut settings: Settings = figment.extract().map_err(Box::new)?;
        set_up |= settings.client_id.is_some();
        set_up |= settings.client_secret.is_some() || settings.client_secret_file.is_some();
        if set_up && !self.check {
            // Half of a set-up is an error, which `credentials` names: made-up
            // answers are for those who have set up nothing.
            let upstream = self.upstream.as_deref().unwrap_or(OFFICERND);
            return Ok((settings, origin(upstream)?, None));
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
        Ok((settings, origin(simulator.url())?, Some(simulator)))
    }
}

/// An origin and no more: a path would be dropped, and a pattern is no place.
fn origin(text: &str) -> Result<Uri, BoxError> {
    let sound = |uri: &Uri| {
        let host = uri.host().unwrap_or_default();
        let here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let safe = match uri.scheme_str() {
            Some("http") => here,
            scheme => scheme == Some("https"),
        };
        let whole = uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '*']);
        safe && whole
    };
    let uri = text.parse().ok().filter(sound);
    uri.ok_or_else(|| "GATEWAY_UPSTREAM is to be https://host, or http:// to this machine".into())
}
