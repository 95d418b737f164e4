use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::later;
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

/// What one fetch of a [`ScriptedProvider`] does.
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
