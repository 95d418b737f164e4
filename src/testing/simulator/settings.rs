use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::Simulator;
use crate::secret::Secret;

/// How a [`Simulator`] behaves: each setting starts as OfficeRnD documents it,
/// or, where it doesn't, as what asks most of a client.
///
/// ```
/// use officernd_auth::testing::Simulator;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let officernd = Simulator::builder()
///     .org_slug("acme")
///     .grant_scopes(["flex.community.members.read"])
///     .require_scope_for("members", "flex.community.members.read")
///     .token_life(Duration::from_secs(90))
///     .start()
///     .await?;
/// assert_eq!(officernd.org_slug(), "acme");
/// assert_eq!(officernd.scope(), "flex.community.members.read");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a simulator runs once it is started"]
pub struct SimulatorBuilder {
    /// The app that the simulator's accessors describe.
    pub(super) client_id: String,
    /// The client secret of each app of the organization.
    pub(super) secrets: BTreeMap<String, Secret>,
    pub(super) org_slug: String,
    pub(super) scopes: Vec<String>,
    pub(super) required: Vec<(String, String)>,
    pub(super) token_life: Duration,
    pub(super) rate_limit: Option<(u32, Duration)>,
    pub(super) retry_after: bool,
    pub(super) latency: Duration,
    pub(super) invalid_client_status: u16,
    pub(super) challenge: bool,
    pub(super) reuse_live_token: bool,
    pub(super) revoke_older: bool,
}

impl SimulatorBuilder {
    pub(super) fn new() -> Self {
        let defaults = Self {
            client_id: String::new(),
            secrets: BTreeMap::new(),
            org_slug: "simulated-org".into(),
            scopes: vec!["officernd.api.read".into(), "officernd.api.write".into()],
            required: Vec::new(),
            token_life: Duration::from_secs(3600),
            rate_limit: Some((5, Duration::from_secs(60))),
            retry_after: false,
            latency: Duration::ZERO,
            invalid_client_status: 401,
            challenge: false,
            reuse_live_token: false,
            revoke_older: false,
        };
        defaults.credentials("Kf3xQ9vTz1LmB7cR", "simulatedSecret0simulatedSecret0")
    }

    /// The app's client id and secret. Default: some of the usual shape, 16 and
    /// 32 letters and digits.
    pub fn credentials(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client_id = id.into();
        let secret = Secret::from(secret.into());
        self.secrets = BTreeMap::from([(self.client_id.clone(), secret)]);
        self
    }

    /// The one organization that the app belongs to. Default: `simulated-org`.
    pub fn org_slug(mut self, slug: impl Into<String>) -> Self {
        self.org_slug = slug.into();
        self
    }

    /// The scopes that the app has: a request for any other fails whole.
    /// Default: `officernd.api.read` and `officernd.api.write`.
    pub fn grant_scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses API requests below `path` (what follows the organization's slug,
    /// such as `members` or `billing/payments`) unless their token has `scope`.
    /// Every rule that fits a path must be met. A scope that the app lacks forbids
    /// the path to every token. Default: none, any token will do.
    pub fn require_scope_for(mut self, path: impl Into<String>, scope: impl Into<String>) -> Self {
        self.required.push((path.into(), scope.into()));
        self
    }

    /// How long a token lives, from when it is issued. Default: 3,600 s.
    ///
    /// `expires_in` is whole seconds, rounded down, and never less than one: a
    /// token of 2.5 s says 2, and one of 300 ms says 1 and dies early.
    pub fn token_life(mut self, life: Duration) -> Self {
        self.token_life = life;
        self
    }

    /// As many requests the token endpoint takes in any stretch of this length,
    /// before it answers 429. Failed and refused ones count too. Default: 5 in 60 s.
    pub fn rate_limit(mut self, requests: u32, per: Duration) -> Self {
        self.rate_limit = Some((requests, per));
        self
    }

    /// Lets the token endpoint take any number of requests.
    pub fn no_rate_limit(mut self) -> Self {
        self.rate_limit = None;
        self
    }

    /// Whether a 429 says in `Retry-After` how many seconds to wait. Default:
    /// `false`, as OfficeRnD doesn't promise it.
    pub fn retry_after(mut self, sent: bool) -> Self {
        self.retry_after = sent;
        self
    }

    /// How long each answer of the token endpoint is on its way, after it is
    /// made: a new token ages meanwhile. Default: zero.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// The status of `invalid_client`. Default: 401; some servers say 400 or 403.
    pub fn invalid_client_status(mut self, status: u16) -> Self {
        self.invalid_client_status = status;
        self
    }

    /// Whether the API's 401 carries `WWW-Authenticate: Bearer` (RFC 6750 §3),
    /// with `invalid_token` or `insufficient_scope`. Default: `false`.
    pub fn challenge(mut self, sent: bool) -> Self {
        self.challenge = sent;
        self
    }

    /// Whether a second request for the same scopes gets the token that still
    /// lives, with what remains as its `expires_in`. Default: `false`, a new one.
    pub fn reuse_live_token(mut self, reuse: bool) -> Self {
        self.reuse_live_token = reuse;
        self
    }

    /// Whether a new token revokes all older ones. Default: `false`.
    pub fn revoke_older(mut self, revoke: bool) -> Self {
        self.revoke_older = revoke;
        self
    }

    /// Starts the simulator on a free port of 127.0.0.1, as tasks of the current
    /// runtime: in a test on one thread, don't block that thread.
    ///
    /// # Errors
    ///
    /// No port could be bound, or there is no tokio runtime.
    ///
    /// # Panics
    ///
    /// The runtime was built without `enable_io`.
    pub async fn start(self) -> io::Result<Simulator> {
        Simulator::with(self).await
    }
}
