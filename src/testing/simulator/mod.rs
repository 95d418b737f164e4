//! [`Simulator`] is the handle, `server` has the sockets, `oauth` and `api` the
//! rules, `reply` the answers, `state` what changes.

mod api;
mod fault;
mod journal;
mod oauth;
mod reply;
mod server;
mod settings;
mod state;
mod tokens;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

pub use self::fault::{Fault, Faults};
pub use self::journal::RecordedRequest;
pub use self::settings::SimulatorBuilder;
use self::state::Shared;
use crate::credentials::ClientCredentials;
use crate::secret::Secret;
#[cfg(feature = "reqwest")]
use crate::{ConfigError, HttpTokenProvider, OfficeRndAuthLayer};

/// An OfficeRnD that runs inside your test, until it is dropped.
///
/// - `POST /oauth/token` follows the token endpoint's rules: a form of four
///   fields, all scopes or none, and five requests a minute whatever becomes of
///   them.
/// - `/api/v1|v2/organizations/{slug}/...` wants a live token and the right slug,
///   and answers any path with a small list.
///
/// What OfficeRnD leaves open is a setting of [`SimulatorBuilder`].
///
/// ```
/// use officernd_auth::testing::Simulator;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let officernd = Simulator::start().await?;
/// assert_eq!(officernd.token_url(), format!("{}/oauth/token", officernd.url()));
/// # Ok(())
/// # }
/// ```
pub struct Simulator {
    shared: Arc<Shared>,
    addr: SocketAddr,
    url: String,
    accepting: AbortHandle,
}

impl Simulator {
    /// Starts one with every setting at its default.
    ///
    /// # Errors
    ///
    /// As [`SimulatorBuilder::start`].
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Settings to change before the start.
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::new()
    }

    async fn with(settings: SimulatorBuilder) -> io::Result<Self> {
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

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The origin of the API: the same as [`url`](Self::url).
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.url
    }

    /// The address of the token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.url)
    }

    /// The app's client id.
    #[must_use]
    pub fn client_id(&self) -> String {
        self.shared.state().settings.client_id.clone()
    }

    /// The app's client secret, empty once the app is deleted. It guards nothing
    /// but this simulator.
    #[must_use]
    pub fn client_secret(&self) -> String {
        let settings = &self.shared.state().settings;
        let secret = settings.secrets.get(&settings.client_id);
        secret.map_or_else(String::new, |secret| secret.expose().to_owned())
    }

    /// The app's credentials, with all its scopes and this simulator's token URL.
    #[must_use]
    pub fn credentials(&self) -> ClientCredentials {
        ClientCredentials::new(self.client_id(), self.client_secret())
            .scope(self.scope())
            .token_url(self.token_url())
    }

    /// A layer with [`credentials`](Self::credentials) that puts its token on
    /// requests to this simulator.
    ///
    /// # Errors
    ///
    /// As [`HttpTokenProvider::new`].
    #[cfg(feature = "reqwest")]
    pub fn layer(&self) -> Result<OfficeRndAuthLayer, ConfigError> {
        let provider = HttpTokenProvider::new(self.credentials())?;
        let layer = OfficeRndAuthLayer::builder(provider);
        layer.allow_origin(self.url()).build()
    }

    /// The organization of the app.
    #[must_use]
    pub fn org_slug(&self) -> String {
        self.shared.state().settings.org_slug.clone()
    }

    /// All scopes that the app has, separated by spaces.
    #[must_use]
    pub fn scope(&self) -> String {
        self.shared.state().settings.scopes.join(" ")
    }

    /// Changes any settings while it runs, but not tokens already issued.
    ///
    /// ```
    /// # use officernd_auth::testing::Simulator;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let officernd = Simulator::start().await?;
    /// officernd.reconfigure(|settings| settings.challenge(true).no_rate_limit());
    /// # Ok(())
    /// # }
    /// ```
    pub fn reconfigure(&self, change: impl FnOnce(SimulatorBuilder) -> SimulatorBuilder) {
        let settings = self.shared.state().settings.clone();
        // Without the lock: the closure may call this simulator.
        let changed = change(settings);
        self.shared.state().settings = changed;
    }

    /// Gives the app another secret, as a rotation does.
    pub fn set_secret(&self, secret: impl Into<String>) {
        self.add_app(self.client_id(), secret);
    }

    /// Makes another app in the same organization, with the same scopes.
    pub fn add_app(&self, client_id: impl Into<String>, client_secret: impl Into<String>) {
        let (id, secret) = (client_id.into(), Secret::from(client_secret.into()));
        self.shared.state().settings.secrets.insert(id, secret);
    }

    /// Deletes an app and revokes its tokens.
    pub fn delete_app(&self, client_id: &str) {
        let mut state = self.shared.state();
        state.settings.secrets.remove(client_id);
        state.tokens.revoke_app(client_id);
    }

    /// Sets how long tokens live that are issued from now on.
    pub fn set_token_life(&self, life: Duration) {
        self.shared.state().settings.token_life = life;
    }

    /// Sets the token endpoint's limit. Requests already counted still count.
    pub fn set_rate_limit(&self, requests: u32, per: Duration) {
        self.shared.state().settings.rate_limit = Some((requests, per));
    }

    /// Sets how long the token endpoint's answers are on their way.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().settings.latency = latency;
    }

    /// The script of faults of the token endpoint.
    #[must_use]
    pub fn token_faults(&self) -> &Faults {
        &self.shared.token_faults
    }

    /// The script of faults of the API.
    #[must_use]
    pub fn api_faults(&self) -> &Faults {
        &self.shared.api_faults
    }

    /// Revokes this token, before its time.
    pub fn revoke(&self, token: &str) {
        self.shared.state().tokens.revoke(token);
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }

    /// How many requests came to the token endpoint, however they were answered.
    #[must_use]
    pub fn token_requests(&self) -> u64 {
        *self.shared.token_requests.borrow()
    }

    /// Waits until the token endpoint has seen this many requests in all.
    pub async fn token_requests_reach(&self, count: u64) {
        let mut seen = self.shared.token_requests.subscribe();
        let _ = seen.wait_for(|seen| *seen >= count).await;
    }

    /// How many tokens were handed out.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.shared.state().tokens.issued
    }

    /// The most token requests that were ever in flight at once.
    #[must_use]
    pub fn max_concurrent_token_requests(&self) -> usize {
        self.shared.state().journal.max_in_flight
    }

    /// The most token requests in any window of this length, of the last 10,000.
    #[must_use]
    pub fn max_token_requests_in(&self, window: Duration) -> usize {
        self.shared.state().journal.max_token_requests_in(window)
    }

    /// How many requests came to the API (any path below `/api/`).
    #[must_use]
    pub fn api_requests(&self) -> u64 {
        self.shared.state().journal.api_requests
    }

    /// How many of the API's answers were a 401.
    #[must_use]
    pub fn api_unauthorized(&self) -> u64 {
        self.shared.state().journal.api_unauthorized
    }

    /// The last 10,000 requests, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().journal.log.iter().cloned().collect()
    }
}

impl Drop for Simulator {
    /// Stops listening and cuts all connections.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Without the secret and the tokens.
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
