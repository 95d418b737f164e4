//! A scripted provider and a manual clock for tests.
//!
//! The crate [`officernd-simulator`] simulates OfficeRnD on loopback: a token endpoint that allows five requests a
//! minute, an API that checks tokens, and scripted faults. Add it as a dev-dependency to test a whole service:
//!
//! ```
//! # #[cfg(feature = "reqwest")]
//! # mod example {
//! use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
//! use officernd_simulator::{Fault, Simulator};
//! use reqwest::{Client, Method, Request};
//! use tower::{Layer as _, ServiceExt as _};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # pub(super) async fn main() -> Result<(), BoxError> {
//! let officernd = Simulator::builder().org_slug("acme").start().await?;
//! let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
//!     .scope(officernd.scope())
//!     .token_url(officernd.token_url());
//! let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
//!     .allow_origin(officernd.url())
//!     .build()?;
//! let client = layer.layer(Client::new());
//!
//! let url = format!("{}/api/v2/organizations/acme/locations", officernd.url()).parse()?;
//! let request = || Request::new(Method::GET, reqwest::Url::clone(&url));
//! assert_eq!(client.clone().oneshot(request()).await?.status(), 200);
//!
//! officernd.api_faults().next(1, Fault::Status(503));
//! assert_eq!(client.clone().oneshot(request()).await?.status(), 503);
//!
//! // Both requests carried the same token.
//! assert_eq!(officernd.token_requests(), 1);
//! # Ok(())
//! # }
//! # }
//! # #[cfg(feature = "reqwest")]
//! # fn main() { example::main().unwrap() }
//! # #[cfg(not(feature = "reqwest"))]
//! # fn main() {}
//! ```
//!
//! [`officernd-simulator`]: https://docs.rs/officernd-simulator

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::clock::{Clock, Sleep, TokioClock, later};
use crate::error::{Error, ErrorKind};
use crate::provider::{Cause, FetchContext, KeyMaterial, KeyedProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::secret::Secret;
use crate::token::AccessToken;

/// The maximum number of causes in the log.
const MAX_LOG: usize = 10_000;

/// A provider that follows a script. Clones share the script and the counts.
///
/// After the end of the script, the nth fetch returns the token `scripted-n` at once, valid for
/// 3,600 s.
///
/// ```
/// use officernd_auth::testing::{ScriptedProvider, Step};
/// use officernd_auth::{ErrorKind, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::InvalidClient));
/// let cache = TokenCache::new(provider.clone());
/// assert_eq!(cache.token().await.unwrap_err().kind(), ErrorKind::InvalidClient);
/// // During the backoff no request is sent.
/// assert!(cache.token().await.is_err());
/// assert_eq!(provider.calls(), 1);
/// # }
/// ```
#[derive(Clone)]
pub struct ScriptedProvider {
    script: Arc<Mutex<Script>>,
}

/// The behavior of one fetch of a [`ScriptedProvider`].
///
/// ```
/// use officernd_auth::testing::{ScriptedProvider, Step};
/// use std::time::Duration;
///
/// let life = Duration::from_secs(60);
/// let provider = ScriptedProvider::new().then(Step::Token("first".into(), life)).then(Step::Hang);
/// # drop(provider);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Returns this token with this lifetime.
    Token(Secret, Duration),
    /// Fails with an error of this kind.
    Fail(ErrorKind),
    /// Fails with this error.
    Error(Error),
    /// Never ends.
    Hang,
    /// Panics.
    Panic,
}

#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    life: Duration,
    latency: Duration,
    causes: VecDeque<Cause>,
    calls: usize,
    running: usize,
    most_running: usize,
}

impl ScriptedProvider {
    /// Creates a provider with an empty script.
    #[must_use]
    pub fn new() -> Self {
        let script = Script {
            life: Duration::from_secs(3600),
            ..Script::default()
        };
        let script = Arc::new(Mutex::new(script));
        Self { script }
    }

    /// Adds a step to the script.
    #[must_use]
    pub fn then(self, step: Step) -> Self {
        self.push(step);
        self
    }

    /// Sets the lifetime of tokens after the end of the script. Default: 3,600 s.
    #[must_use]
    pub fn life(self, life: Duration) -> Self {
        self.script().life = life;
        self
    }

    /// Sets how long each fetch takes. Default: zero.
    #[must_use]
    pub fn latency(self, latency: Duration) -> Self {
        self.set_latency(latency);
        self
    }

    /// Adds a step to the script.
    pub fn push(&self, step: Step) {
        self.script().steps.push_back(step);
    }

    /// Sets how long each fetch takes, from the next on.
    pub fn set_latency(&self, latency: Duration) {
        self.script().latency = latency;
    }

    /// Returns the number of fetches.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.script().calls
    }

    /// Returns the causes of the last 10,000 fetches.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        self.script().causes.iter().copied().collect()
    }

    /// Returns the highest number of fetches that ran at the same time.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.script().most_running
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ScriptedProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenProvider for ScriptedProvider {
    #[expect(clippy::panic, reason = "a step of the script")]
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        let (call, step, latency, life) = {
            let mut script = self.script();
            script.running += 1;
            script.most_running = script.most_running.max(script.running);
            script.calls += 1;
            if script.causes.len() == MAX_LOG {
                script.causes.pop_front();
            }
            script.causes.push_back(cx.cause());
            let step = script.steps.pop_front();
            (script.calls, step, script.latency, script.life)
        };
        let _running = Running(self);
        if !latency.is_zero() {
            let until = later(cx.clock().now(), latency);
            cx.clock().sleep_until(until).await;
        }
        match step {
            None => AccessToken::bearer(format!("scripted-{call}"), life),
            Some(Step::Token(token, life)) => AccessToken::bearer(token, life),
            Some(Step::Fail(kind)) => Err(Error::new(kind, "scripted failure")),
            Some(Step::Error(error)) => Err(error),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Panic) => panic!("scripted failure"),
        }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

/// All scripted providers have the same key material.
impl KeyedProvider for ScriptedProvider {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        Ok(KeyMaterial::new(
            "https://scripted.test/",
            "scripted",
            "scripted secret",
        ))
    }
}

impl fmt::Debug for ScriptedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedProvider")
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

/// Counts a running fetch until it ends, panics or is dropped.
struct Running<'a>(&'a ScriptedProvider);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.script().running -= 1;
    }
}

/// A clock that a test advances. Clones are the same clock.
///
/// Advancing it wakes the timeouts and backoffs that wait for it.
///
/// ```
/// use officernd_auth::testing::{ManualClock, ScriptedProvider};
/// use officernd_auth::OfficeRndAuthLayer;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
///     .clock(clock.clone())
///     .build()?;
/// layer.cache().warm_up().await?;
/// clock.advance_wall(Duration::from_secs(3600)); // like a suspended machine
/// assert!(layer.cache().try_token().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<watch::Sender<(Instant, SystemTime)>>,
}

impl ManualClock {
    /// Creates a clock that is stopped at the current time.
    #[must_use]
    pub fn new() -> Self {
        let start = (TokioClock.now(), TokioClock.wall());
        let time = Arc::new(watch::Sender::new(start));
        Self { time }
    }

    /// Advances both clocks.
    pub fn advance(&self, by: Duration) {
        self.time.send_modify(|(now, wall)| {
            *now += by;
            *wall += by;
        });
    }

    /// Advances only the wall clock, like a suspend or a correction of the clock.
    pub fn advance_wall(&self, by: Duration) {
        self.time.send_modify(|(_, wall)| *wall += by);
    }

    /// Sets only the wall clock back.
    pub fn rewind_wall(&self, by: Duration) {
        self.time.send_modify(|(_, wall)| *wall -= by);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.time.borrow().0
    }

    fn wall(&self) -> SystemTime {
        self.time.borrow().1
    }

    fn sleep_until(&self, until: Instant) -> Sleep {
        let mut time = self.time.subscribe();
        Box::pin(async move {
            if time.wait_for(|(now, _)| *now >= until).await.is_err() {
                // The last clock was dropped, so the time never comes.
                std::future::pending().await
            }
        })
    }
}
