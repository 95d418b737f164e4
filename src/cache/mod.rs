//! A cache keeps one token ready. It knows the provider trait and the clock;
//! it knows no requests.
//!
//! [`lifecycle`] takes every decision, and is pure; `state` acts on them.

mod fetch;
mod keep_warm;
mod lifecycle;
mod slot;
mod state;
mod status;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::lifecycle::{Caller, Decision};
pub(crate) use self::slot::SlotReader;
use self::state::State;
pub use self::status::{Phase, TokenStatus};
pub(crate) use self::token::{Settings, Token};
use crate::clock::{Clock, Now, TokioClock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::provider::{DynProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::settings as config;
use crate::sync::{Ordering, Runtime};
use crate::token::AccessToken;

/// The handle of a token cache. Clones share the cache.
///
/// It holds one token and fetches the next: in the background while the old
/// one serves, at most one fetch at a time, each in a task of its own that no
/// caller can cancel. It needs no task between fetches, so it may be made
/// outside a runtime and moved between runtimes.
///
/// ```
/// use officernd_auth::{AccessToken, TokenCache, provider_fn};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let cache = TokenCache::new(provider_fn(|| async {
///     AccessToken::bearer("abc", Duration::from_secs(3600))
/// }));
/// assert!(cache.try_token().is_none());
/// assert_eq!(cache.token().await?.header_value(), "Bearer abc");
/// assert!(cache.try_token().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenCache {
    state: Arc<State>,
}

impl TokenCache {
    /// Makes a cache of this provider's tokens, with every setting at its default.
    /// The [builder](crate::OfficeRndAuthLayer::builder) has the settings.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        let settings = Settings::from(&config::Settings::default());
        Self::with_settings(Box::new(provider), None, settings, Arc::new(TokioClock))
    }

    pub(crate) fn with_settings(
        provider: Box<dyn DynProvider>,
        rate_limit: Option<RateLimit>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State::new(provider, rate_limit, settings, clock);
        keep_warm::ensure(&state);
        Self { state }
    }

    /// Returns the cached token without waiting, if requests can carry it now;
    /// starts a refresh in the background when one is due.
    ///
    /// Returns `None` if there is no token yet, or if it expires within the `expiry_margin` (10 s).
    #[must_use]
    pub fn try_token(&self) -> Option<AccessToken> {
        let token = self.state.slot.load();
        let token = token.as_ref()?;
        self.serves(token).then(|| token.access().clone())
    }

    /// Gives the token to `carry`, if requests can carry it now. With a reader,
    /// the token is its own copy from the second request on.
    #[inline(always)]
    pub(crate) fn try_carry<R>(
        &self,
        reader: Option<&mut SlotReader>,
        carry: impl FnOnce(&Arc<Token>) -> R,
    ) -> Option<R> {
        let slot = &self.state.slot;
        let loaded;
        let token = match reader.and_then(|reader| reader.copy(slot)) {
            Some(copy) => copy,
            None => {
                loaded = slot.load();
                loaded.as_ref()?
            }
        };
        self.serves(token).then(|| carry(token))
    }

    #[inline(always)]
    fn serves(&self, token: &Token) -> bool {
        token.serves(&*self.state.clock, || self.look(token))
    }

    /// Reads both clocks, and starts what is due. `None`: requests cannot carry
    /// the token.
    fn look(&self, token: &Token) -> Option<Now> {
        let now = self.state.now();
        if !token.is_live(now) {
            return None;
        }
        if self.state.is_check_due(now) {
            self.start_due();
        }
        Some(now)
    }

    #[cold]
    fn start_due(&self) {
        keep_warm::ensure(&self.state);
        fetch::start_due(&self.state);
    }

    /// Returns the token, and waits for one if there is none to use.
    ///
    /// In the last part of its life, the `expiry_margin` (10 s), a token is not
    /// used any more. The first transient failure of a fetch is not reported: the
    /// cache tries once more within 1 s.
    ///
    /// # Errors
    ///
    /// The error of the fetch, shared by all who waited for it. During the
    /// backoff after a failed fetch the same error at once. Both say when the
    /// next fetch may start ([`retry_after`](Error::retry_after)).
    /// [`ErrorKind::Timeout`] after the `acquire_timeout` (30 s).
    /// [`ErrorKind::Runtime`] outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch goes on in its own task and serves later callers.
    pub async fn token(&self) -> Result<AccessToken, Error> {
        let token = self.token_until(self.deadline()).await?;
        Ok(token.access().clone())
    }

    /// Returns the token, and waits for one until `deadline` at most.
    pub(crate) async fn token_until(&self, deadline: Instant) -> Result<Arc<Token>, Error> {
        match self.try_carry(None, Arc::clone) {
            Some(token) => Ok(token),
            None => self.acquire(Caller::new(0, deadline)).await,
        }
    }

    /// Asks the [lifecycle], acts on what it decides, and asks again after each
    /// change. Cancel safe: the fetch goes on.
    async fn acquire(&self, mut caller: Caller) -> Result<Arc<Token>, Error> {
        let state = &self.state;
        let mut changes = state.status.subscribe();
        loop {
            // Before the decision: a change after it ends the wait.
            changes.mark_unchanged();
            let runtime = match Runtime::current() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let newer_than = caller.newer_than;
                    let usable = state.with(|it, now| it.usable(newer_than, now).cloned());
                    return usable.ok_or(error);
                }
            };
            match state.with(|lifecycle, now| lifecycle.acquire(&mut caller, now)) {
                Decision::Ready(token) => return Ok(token),
                Decision::Failed(error) => return Err(error),
                Decision::Wait { until, start } => {
                    if let Some(start) = start {
                        keep_warm::ensure(state);
                        fetch::spawn(state, start, &runtime);
                    }
                    timeout_at(&*state.clock, until, changes.changed()).await;
                    // Thousands wake at once for one token: no lock for them.
                    let token = state.slot.newer_than(caller.newer_than);
                    if let Some(token) = token.filter(|token| token.is_live(state.now())) {
                        return Ok(token);
                    }
                }
            }
        }
    }

    /// Fetches a new token now, or joins the fetch that is in flight. Returns
    /// a token newer than the one at the call, or an error.
    ///
    /// # Errors
    ///
    /// Those of [`token`](Self::token). On an error the old token stays in use.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the fetch goes on.
    pub async fn refresh(&self) -> Result<AccessToken, Error> {
        let token = self.state.slot.get();
        let generation = token.map_or(0, |token| token.generation());
        let caller = Caller::new(generation, self.deadline());
        Ok(self.acquire(caller).await?.access().clone())
    }

    /// Waits until there is a token, and keeps the cache warm from then on, as
    /// `keep_warm` does: for start-up and readiness.
    ///
    /// Failures are not reported before the `acquire_timeout` (30 s) ends: the
    /// cache tries again, and the timer goes on trying after that. So a service
    /// that is not ready becomes ready without a request.
    ///
    /// # Errors
    ///
    /// The error of the last fetch. [`ErrorKind::Runtime`] at once outside a
    /// tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the fetch goes on, and the cache is kept warm.
    pub async fn warm_up(&self) -> Result<(), Error> {
        /// How soon credentials that were put right are noticed.
        const INTERVAL: Duration = Duration::from_secs(5);

        self.state.keep_warm.store(true, Ordering::Relaxed);
        keep_warm::ensure(&self.state);
        let deadline = self.deadline();
        loop {
            let Err(error) = self.token_until(deadline).await else {
                return Ok(());
            };
            if error.kind() == ErrorKind::Runtime {
                return Err(error);
            }
            let wait = error.retry_after().unwrap_or(INTERVAL);
            let wait = wait.clamp(Duration::from_millis(100), INTERVAL);
            let until = later(self.clock().now(), wait).min(deadline);
            self.clock().sleep_until(until).await;
            if self.clock().now() >= deadline {
                return Err(error);
            }
        }
    }

    /// Reports that a server answered 401 to this very token: its replacement is
    /// fetched in the background. Until that is there, requests go on with the
    /// old one.
    ///
    /// Returns whether this was the first 401 to the current token: `false` for a
    /// token that was replaced, or that is known as rejected. A token whose
    /// predecessor was rejected too is replaced after 1 min, the next ones after
    /// 2, 4, 8 and then each 10 min. A token that served 290 s, or until its refresh
    /// was due, without a 401 starts the schedule again: it is replaced at once.
    /// Outside a runtime, the next call inside one starts the fetch.
    #[expect(clippy::must_use_candidate, reason = "most callers only report")]
    pub fn reject(&self, token: &AccessToken) -> bool {
        // Another cache's token may have the same generation.
        let is_ours = |current: Arc<Token>| current.value() == token.header_value();
        let ours = self.state.slot.get().is_some_and(is_ours);
        ours && self.reject_generation(token.generation())
    }

    /// Reports a 401 to the token of this generation.
    pub(crate) fn reject_generation(&self, generation: u64) -> bool {
        let first = self.state.rejected(generation);
        // Under the lock: a replay asks next whether the fetch is on its way.
        if self.state.next_check_at() <= self.state.now().monotonic {
            self.start_due();
        }
        first
    }

    /// Returns what the cache is doing now.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        self.state.status()
    }

    /// Follows the status: a value at each event (a fetch starts or ends, a
    /// token is rejected), with the durations of that moment.
    ///
    /// Do not hold a [`borrow`](watch::Receiver::borrow) while calling the cache: the cache waits
    /// for it when it changes the status, which is a deadlock in the same thread and stops all
    /// others. Clone the status instead.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.state.status.subscribe()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.state.clock
    }

    /// Returns until when a caller that comes now waits.
    pub(crate) fn deadline(&self) -> Instant {
        later(self.clock().now(), self.state.settings.acquire_timeout)
    }

    /// Returns the cache of a token, while it lives.
    pub(crate) fn of(token: &Token) -> Option<Self> {
        let state = token.home()?;
        Some(Self { state })
    }

    /// Returns whether a newer token than the rejected one is there, or on its way.
    pub(crate) fn replacement_pending(&self, rejected: u64) -> bool {
        self.state
            .with(|lifecycle, now| lifecycle.is_replacing(rejected, now))
    }

    /// Waits until the fetch of a newer token has ended, at most for the `acquire_timeout`.
    pub(crate) async fn replacement(&self, rejected: u64) {
        let caller = Caller::replay(rejected, self.deadline());
        // Without a newer token, the replay carries the old one: the 401 may
        // have been a passing fault.
        let _ = self.acquire(caller).await;
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}
