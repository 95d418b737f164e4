//! The cache, which keeps one token ready.
//!
//! [`lifecycle`] is pure and makes every decision. [`TokenCache`] and `fetch` act on them.

mod fetch;
mod keep_warm;
mod lifecycle;
mod slot;
mod state;
mod status;
mod token;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::lifecycle::{Caller, Decision};
pub(crate) use self::slot::SlotReader;
use self::state::State;
pub use self::status::{Phase, TokenStatus};
pub(crate) use self::token::{CacheSettings, Token};
use crate::clock::{Clock, Now, TokioClock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::observability;
use crate::provider::{DynProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::settings as config;
use crate::sync::{Handle, Ordering};
use crate::token::AccessToken;

/// A handle to a token cache. Clones share the cache.
///
/// The cache holds one token and fetches the next in the background while the old one is valid. At
/// most one fetch runs at a time, in a separate task that no caller can cancel. Between fetches there
/// is no task, so the cache can be created outside a runtime and moved between runtimes.
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
    /// Creates a cache with default settings. Use
    /// [`OfficeRndAuthLayer::builder`](crate::OfficeRndAuthLayer::builder) to change them.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        let settings = CacheSettings::from(&config::Settings::default());
        let rate_limit = provider.rate_limit();
        Self::with_settings(
            Box::new(provider),
            rate_limit,
            settings,
            Arc::new(TokioClock),
        )
    }

    pub(crate) fn with_settings(
        provider: Box<dyn DynProvider>,
        rate_limit: Option<RateLimit>,
        settings: CacheSettings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State::new(provider, rate_limit, settings, clock);
        keep_warm::ensure(&state);
        Self { state }
    }

    /// Returns the cached token without waiting, and starts a refresh in the background if one is due.
    ///
    /// Returns `None` if there is no token, or if it expires within the `expiry_margin` (10 s).
    #[must_use]
    pub fn try_token(&self) -> Option<AccessToken> {
        let token = self.state.slot.load();
        let token = token.as_ref()?;
        self.is_usable(token).then(|| token.access().clone())
    }

    /// Calls `carry` with the token if it is usable. With a reader, the token is the reader's own copy
    /// from the second request on.
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
        self.is_usable(token).then(|| carry(token))
    }

    #[inline(always)]
    fn is_usable(&self, token: &Token) -> bool {
        token.is_usable(&*self.state.clock, || self.look(token))
    }

    /// Reads both clocks, and starts the fetch that is due. Returns `None` if the token has expired.
    fn look(&self, token: &Token) -> Option<Now> {
        let now = self.state.now();
        if !token.is_live(now) {
            return None;
        }
        if self.state.is_check_due(now) {
            fetch::start_due(&self.state);
        }
        Some(now)
    }

    /// Returns the token, waiting for a fetch if needed.
    ///
    /// A token within the `expiry_margin` (10 s) of its expiry is not used. After a first transient
    /// failure, such as a 503, a fetch retries once within 1 s before it reports an error.
    ///
    /// # Errors
    ///
    /// Returns the error of the fetch to every caller that waited for it, and at once during the
    /// backoff that follows. [`retry_after`](Error::retry_after) says when the next fetch may start.
    /// Returns [`ErrorKind::Timeout`] after the `acquire_timeout` (30 s), and
    /// [`ErrorKind::Runtime`] outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. The fetch continues in its own task, and later callers get its
    /// token.
    pub async fn token(&self) -> Result<AccessToken, Error> {
        let token = self.token_until(self.deadline()).await?;
        Ok(token.access().clone())
    }

    /// Returns the token, waiting until `deadline` at most.
    pub(crate) async fn token_until(&self, deadline: Instant) -> Result<Arc<Token>, Error> {
        match self.try_carry(None, Arc::clone) {
            Some(token) => Ok(token),
            None => self.acquire(Caller::new(0, deadline)).await,
        }
    }

    /// Asks the [lifecycle] for a decision, and again after each change, until the decision is a token
    /// or an error.
    async fn acquire(&self, mut caller: Caller) -> Result<Arc<Token>, Error> {
        let state = &self.state;
        let mut changes = state.status.subscribe();
        loop {
            // Must come before the decision, so that any later change ends the wait.
            changes.mark_unchanged();
            let Ok(runtime) = Handle::try_current() else {
                let newer_than = caller.newer_than;
                let usable = state.with(|it, now| it.usable(newer_than, now).cloned());
                return usable.ok_or_else(no_runtime);
            };
            match state.with(|lifecycle, now| lifecycle.acquire(&mut caller, now)) {
                Decision::Ready(token) => return Ok(token),
                Decision::Failed(error) => return Err(error),
                Decision::Wait { until, start } => {
                    if let Some(start) = start {
                        fetch::spawn(state, start, &runtime);
                    }
                    timeout_at(&*state.clock, until, pin!(changes.changed())).await;
                    // Thousands of callers may wake for one token, so they take no lock for it.
                    let token = state.slot.newer_than(caller.newer_than);
                    if let Some(token) = token.filter(|token| token.is_live(state.now())) {
                        return Ok(token);
                    }
                }
            }
        }
    }

    /// Fetches a new token, or joins the fetch that is in flight. The result is newer than the token
    /// at the time of the call.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`token`](Self::token). After an error, the old token stays in use.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. The fetch continues.
    pub async fn refresh(&self) -> Result<AccessToken, Error> {
        let token = self.state.slot.get();
        let generation = token.map_or(0, |token| token.generation());
        let caller = Caller::new(generation, self.deadline());
        Ok(self.acquire(caller).await?.access().clone())
    }

    /// Waits until there is a token, and keeps the cache warm from then on, like the setting
    /// `keep_warm`. For startup and readiness.
    ///
    /// The cache retries failed fetches until the `acquire_timeout` (30 s) ends. After that, this
    /// returns the error, and the timer continues to retry. So a service that is not ready becomes
    /// ready without a request.
    ///
    /// # Errors
    ///
    /// Returns the error of the last fetch. Outside a tokio runtime, returns [`ErrorKind::Runtime`] at
    /// once.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. The fetch continues, and the cache is kept warm.
    pub async fn warm_up(&self) -> Result<(), Error> {
        /// The longest wait between attempts, so that corrected credentials are noticed soon.
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

    /// Reports that a server answered 401 to this token. The cache fetches a replacement in the
    /// background; until it arrives, requests use the old token.
    ///
    /// Returns `true` for the first 401 to the current token, `false` for a token that was replaced.
    ///
    /// The first rejected token is replaced at once. If its replacement is rejected too, that one is
    /// replaced after 1 min, and the next after 2, 4, 8 and then every 10 min. A token that was in use
    /// for 290 s, or until its refresh was due, without a 401 resets this schedule. Outside a runtime,
    /// the next call inside one starts the fetch.
    #[expect(clippy::must_use_candidate, reason = "most callers only report")]
    pub fn reject(&self, token: &AccessToken) -> bool {
        // A token of another cache may have the same generation.
        let is_ours = |current: Arc<Token>| current.value() == token.header_value();
        let ours = self.state.slot.get().is_some_and(is_ours);
        ours && self.reject_generation(token.generation())
    }

    /// Reports a 401 to the token of this generation.
    pub(crate) fn reject_generation(&self, generation: u64) -> bool {
        let state = &self.state;
        let rejected = state.with(|lifecycle, now| lifecycle.rejected(generation, now));
        if let Some((age, replace_in)) = rejected {
            observability::rejected(generation, age, replace_in);
        }
        // Waits for the lock, because a replay checks next whether the fetch has started.
        if state.next_check_at() <= state.now().monotonic {
            fetch::start_due(state);
        }
        rejected.is_some()
    }

    /// Returns the state of the cache.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        self.state.status()
    }

    /// Returns a receiver that gets a new status whenever a fetch starts or ends or a token is
    /// rejected. Its durations count from that event. The current status counts as seen.
    ///
    /// Do not hold a [`borrow`](watch::Receiver::borrow) while calling the cache: a change of the
    /// status waits for the borrow, which deadlocks in the same thread and blocks all other callers.
    /// Clone the status instead.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.state.status.subscribe()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.state.clock
    }

    /// Returns the deadline of a caller that starts to wait now.
    pub(crate) fn deadline(&self) -> Instant {
        later(self.clock().now(), self.state.settings.acquire_timeout)
    }

    /// Returns the cache of a token, unless it was dropped.
    pub(crate) fn of(token: &Token) -> Option<Self> {
        let state = token.home()?;
        Some(Self { state })
    }

    /// Returns `true` if there is a newer token than the rejected one, or a fetch for it.
    pub(crate) fn replacement_pending(&self, rejected: u64) -> bool {
        self.state
            .with(|lifecycle, now| lifecycle.is_replacing(rejected, now))
    }

    /// Waits for a newer token than the rejected one, at most for the `acquire_timeout`.
    pub(crate) async fn replacement(&self, rejected: u64) {
        let caller = Caller::replay(rejected, self.deadline());
        // On failure the replay carries the old token, because the 401 may have been transient.
        let _ = self.acquire(caller).await;
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

fn no_runtime() -> Error {
    Error::new(
        ErrorKind::Runtime,
        "no token is cached, and there is no tokio runtime to fetch one on; call inside a runtime",
    )
}
