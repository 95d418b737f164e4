use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::simulator::Simulator;

/// Settings of a [`Simulator`].
///
/// The defaults follow OfficeRnD's documentation, and are strict where it says nothing.
///
/// ```
/// use officernd_simulator::Simulator;
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
#[derive(Clone)]
#[must_use = "a simulator runs once it is started"]
pub struct SimulatorBuilder {
    /// The app that the simulator's methods return.
    pub(crate) client_id: String,
    /// The client secret of each app, by client id.
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) org_slug: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) required: Vec<(String, String)>,
    pub(crate) token_life: Duration,
    pub(crate) rate_limit: Option<(u32, Duration)>,
    pub(crate) retry_after: bool,
    pub(crate) latency: Duration,
}

impl SimulatorBuilder {
    pub(crate) fn new() -> Self {
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
        };
        defaults.credentials("Kf3xQ9vTz1LmB7cR", "simulatedSecret0simulatedSecret0")
    }

    /// Sets the app's client id and secret. Default: 16 and 32 letters and digits, like OfficeRnD's.
    pub fn credentials(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client_id = id.into();
        self.secrets = BTreeMap::from([(self.client_id.clone(), secret.into())]);
        self
    }

    /// Sets the slug of the app's organization. Default: `simulated-org`.
    pub fn org_slug(mut self, slug: impl Into<String>) -> Self {
        self.org_slug = slug.into();
        self
    }

    /// Sets the scopes of the app. A request for any other scope fails. Default: `officernd.api.read` and
    /// `officernd.api.write`.
    pub fn grant_scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses API requests below `path` (the part behind the organization's slug, such as `members` or
    /// `billing/payments`) unless their token has `scope`. Every rule that matches a path must be met. A scope that the
    /// app lacks forbids the path to every token. Default: no rule.
    pub fn require_scope_for(mut self, path: impl Into<String>, scope: impl Into<String>) -> Self {
        self.required.push((path.into(), scope.into()));
        self
    }

    /// Sets the lifetime of a token. Default: 3,600 s.
    ///
    /// `expires_in` is the lifetime in seconds, rounded down, and at least 1: for 2.5 s it is 2; for 300 ms it is 1,
    /// and the token expires earlier.
    pub fn token_life(mut self, life: Duration) -> Self {
        self.token_life = life;
        self
    }

    /// Sets the rate limit of the token endpoint: `requests` in any window of `per`, then 429. Failed and refused
    /// requests count too. Default: 5 in 60 s.
    pub fn rate_limit(mut self, requests: u32, per: Duration) -> Self {
        self.rate_limit = Some((requests, per));
        self
    }

    /// Removes the rate limit of the token endpoint.
    pub fn no_rate_limit(mut self) -> Self {
        self.rate_limit = None;
        self
    }

    /// Sets whether a 429 has a `Retry-After` header, in seconds. Default: `false`, since OfficeRnD does not document
    /// it.
    pub fn retry_after(mut self, sent: bool) -> Self {
        self.retry_after = sent;
        self
    }

    /// Sets the delay between issuing a token and responding. The token ages meanwhile. Default: zero.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Starts the simulator on a free port of 127.0.0.1.
    ///
    /// It runs as tasks of the current tokio runtime: in a test on one thread, don't block that thread.
    ///
    /// # Errors
    ///
    /// Fails if no port can be bound or there is no tokio runtime.
    ///
    /// # Panics
    ///
    /// Panics if the runtime was built without `enable_io`.
    pub async fn start(self) -> io::Result<Simulator> {
        Simulator::with(self).await
    }
}

/// Shows no secret.
impl fmt::Debug for SimulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatorBuilder")
            .field("client_id", &self.client_id)
            .field("org_slug", &self.org_slug)
            .field("scopes", &self.scopes)
            .field("token_life", &self.token_life)
            .field("rate_limit", &self.rate_limit)
            .finish_non_exhaustive()
    }
}
