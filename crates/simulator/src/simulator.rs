use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::fault::Faults;
use crate::recorded::RecordedRequest;
use crate::server;
use crate::settings::SimulatorBuilder;
use crate::state::Shared;

/// A simulated OfficeRnD on a free port of 127.0.0.1. Dropping it stops it.
///
/// The [crate page](crate) lists its rules, and [`SimulatorBuilder`] its settings. All methods may be called while
/// requests are under way.
pub struct Simulator {
    shared: Arc<Shared>,
    addr: SocketAddr,
    url: String,
    accepting: AbortHandle,
}

impl Simulator {
    /// Starts a simulator with the default settings.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`SimulatorBuilder::start`].
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder with the default settings.
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::new()
    }

    pub(crate) async fn with(settings: SimulatorBuilder) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        let accepting = runtime.spawn(server::accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            addr,
            url: format!("http://{addr}"),
            accepting: accepting.abort_handle(),
        })
    }

    /// Returns the address that the simulator listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns `http://127.0.0.1:PORT`: the origin of the API, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL of the token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.url)
    }

    /// Returns the client id of the app.
    #[must_use]
    pub fn client_id(&self) -> String {
        self.shared.state().settings.client_id.clone()
    }

    /// Returns the client secret of the app; empty once the app is deleted.
    #[must_use]
    pub fn client_secret(&self) -> String {
        let settings = &self.shared.state().settings;
        let secret = settings.secrets.get(&settings.client_id);
        secret.cloned().unwrap_or_default()
    }

    /// Returns the slug of the app's organization.
    #[must_use]
    pub fn org_slug(&self) -> String {
        self.shared.state().settings.org_slug.clone()
    }

    /// Returns all scopes of the app, separated by spaces.
    #[must_use]
    pub fn scope(&self) -> String {
        self.shared.state().settings.scopes.join(" ")
    }

    /// Returns the environment of a program that uses this simulator's app, as `officernd-auth` reads it:
    /// `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET`, `OFFICERND_SCOPES` and `OFFICERND_TOKEN_URL`. The API is at
    /// [`url`](Self::url), which the program has to allow as an origin.
    #[must_use]
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("OFFICERND_CLIENT_ID", self.client_id()),
            ("OFFICERND_CLIENT_SECRET", self.client_secret()),
            ("OFFICERND_SCOPES", self.scope()),
            ("OFFICERND_TOKEN_URL", self.token_url()),
        ]
    }

    /// Replaces the app's client secret.
    pub fn set_secret(&self, secret: impl Into<String>) {
        self.add_app(self.client_id(), secret);
    }

    /// Adds an app to the organization, with the same scopes.
    pub fn add_app(&self, client_id: impl Into<String>, client_secret: impl Into<String>) {
        let (id, secret) = (client_id.into(), client_secret.into());
        self.shared.state().settings.secrets.insert(id, secret);
    }

    /// Deletes an app and revokes its tokens.
    pub fn delete_app(&self, client_id: &str) {
        let mut state = self.shared.state();
        state.settings.secrets.remove(client_id);
        state.tokens.revoke_app(client_id);
    }

    /// Sets the lifetime of tokens issued from now on.
    pub fn set_token_life(&self, life: Duration) {
        self.shared.state().settings.token_life = life;
    }

    /// Sets the delay between issuing a token and responding.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().settings.latency = latency;
    }

    /// Returns the script of faults of the token endpoint.
    #[must_use]
    pub fn token_faults(&self) -> &Faults {
        &self.shared.token_faults
    }

    /// Returns the script of faults of the API.
    #[must_use]
    pub fn api_faults(&self) -> &Faults {
        &self.shared.api_faults
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }

    /// Returns the number of requests to the token endpoint, refused ones included.
    #[must_use]
    pub fn token_requests(&self) -> u64 {
        *self.shared.token_requests.borrow()
    }

    /// Waits until the token endpoint has received this many requests in all.
    pub async fn token_requests_reach(&self, count: u64) {
        let mut seen = self.shared.token_requests.subscribe();
        let _ = seen.wait_for(|seen| *seen >= count).await;
    }

    /// Returns the number of tokens issued.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.shared.state().tokens.issued
    }

    /// Returns the highest number of token requests in any window of this length.
    #[must_use]
    pub fn max_token_requests_in(&self, window: Duration) -> usize {
        self.shared.state().max_token_requests_in(window)
    }

    /// Returns the number of requests to the API (any path below `/api/`).
    #[must_use]
    pub fn api_requests(&self) -> u64 {
        self.shared.state().api_requests
    }

    /// Returns the number of 401 responses of the API.
    #[must_use]
    pub fn api_unauthorized(&self) -> u64 {
        self.shared.state().api_unauthorized
    }

    /// Returns the first 100,000 requests, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().requests.clone()
    }
}

impl Drop for Simulator {
    /// Stops listening and closes all connections.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("url", &self.url)
            .field("token_requests", &self.token_requests())
            .field("tokens_issued", &self.tokens_issued())
            .field("api_requests", &self.api_requests())
            .finish_non_exhaustive()
    }
}
