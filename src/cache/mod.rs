//! A cache keeps one token ready. It knows the provider trait and the clock;
//! it knows no requests.
//!
//! [`lifecycle`] takes every decision, and is pure; `state` acts on them.

mod attempt;
mod backoff;
mod caller;
mod fetch;
mod keep_warm;
mod lifecycle;
mod lifetime;
mod locked;
mod next_check;
mod rejection;
mod settings;
mod slot;
mod state;
mod status;
mod token_id;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub(crate) use self::backoff::Backoff;
use self::caller::Caller;
use self::lifetime::Freshness;
pub(crate) use self::settings::Settings;
use self::slot::{CachedToken, Verdict};
pub(crate) use self::slot::{SlotReader, TokenHeader};
use self::state::State;
pub use self::status::{Phase, TokenStatus};
use crate::clock::{Clock, TokioClock, later};
use crate::error::{Error, ErrorKind};
use crate::provider::{DynProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::settings as config;
use crate::sync::Ordering;
use crate::token::AccessToken;

/// Identifies the token that a request carries.
pub(crate) type TokenId = token_id::TokenId<State>;

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
    /// A cache of this provider's tokens, with every setting at its default.
    /// The [builder](crate::OfficeRndAuthLayer::builder) has the settings.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        let settings = Settings::new(&config::Settings::default(), Arc::new(TokioClock));
        Self::with_settings(Box::new(provider), None, settings)
    }

    pub(crate) fn with_settings(
        provider: Box<dyn DynProvider>,
        rate_limit: Option<RateLimit>,
        settings: Settings,
    ) -> Self {
        let state = State::new(provider, rate_limit, settings);
        keep_warm::ensure(&state);
        Self { state }
    }

    /// The token, if requests can carry it now. Never waits, never fails;
    /// starts a refresh in the background when one is due.
    ///
    /// `None`: there is no token yet, it is expired, or it expires within the
    /// `expiry_margin` (10 s) and requests should wait for the next one, as
    /// [`token`](Self::token) does.
    #[must_use]
    pub fn try_token(&self) -> Option<AccessToken> {
        self.mark_used();
        let cached = self.state.slot.load();
        let cached = cached.as_deref()?;
        let usable = self.look(cached) != Verdict::Unusable;
        usable.then(|| cached.issued.token.clone())
    }

    /// [`try_token`](Self::try_token) for the hit path: gives the header to
    /// `insert`, which copies it to where it belongs. A header value that is
    /// returned by value costs more than all else here.
    #[inline(always)]
    pub(crate) fn try_header<R>(
        &self,
        reader: &mut SlotReader,
        insert: impl FnOnce(&TokenHeader) -> R,
    ) -> Option<R> {
        let slot = &self.state.slot;
        let loaded;
        let cached = match reader.current(slot) {
            Some(cached) => cached,
            None => match reader.update(slot) {
                Some(cached) => cached,
                None => {
                    loaded = slot.load();
                    loaded.as_deref()?
                }
            },
        };
        let clock = &*self.state.settings.clock;
        cached.header(clock, || self.look(cached)).map(insert)
    }

    /// The same without a reader.
    #[inline(always)]
    pub(crate) fn try_header_once<R>(&self, insert: impl FnOnce(&TokenHeader) -> R) -> Option<R> {
        let loaded = self.state.slot.load();
        let cached = loaded.as_deref()?;
        let clock = &*self.state.settings.clock;
        cached.header(clock, || self.look(cached)).map(insert)
    }

    /// A request asks for the token: the timer of `keep_warm` goes on.
    #[inline]
    pub(crate) fn mark_used(&self) {
        let used = &self.state.used;
        if !used.load(Ordering::Relaxed) {
            used.store(true, Ordering::Relaxed);
        }
    }

    /// Reads both clocks, and starts what is due.
    fn look(&self, cached: &CachedToken) -> Verdict {
        let now = self.state.now();
        let freshness = cached.issued.freshness(now);
        if freshness >= Freshness::ExpiringSoon {
            return Verdict::Unusable;
        }
        if self.state.is_check_due(now) {
            self.start_due();
            return Verdict::Usable;
        }
        match freshness {
            Freshness::Fresh => Verdict::Fresh,
            _ => Verdict::Usable,
        }
    }

    #[cold]
    fn start_due(&self) {
        keep_warm::ensure(&self.state);
        fetch::spawn_due(&self.state);
    }

    /// The token; waits for one if there is none to use.
    ///
    /// While the token has less than the `expiry_margin` (10 s) to live, waits
    /// for the next one, and returns the old one if that does not come within
    /// nine tenths of the margin. The first transient failure of a fetch is not
    /// reported: the cache tries once more within 1 s.
    ///
    /// # Errors
    ///
    /// The error of the fetch, shared by all who waited for it. During the
    /// backoff after a failed fetch the same error at once. Both say when the
    /// next fetch may start ([`retry_after`](Error::retry_after)).
    /// [`ErrorKind::Timeout`] after the `acquire_timeout` (30 s).
    /// [`ErrorKind::Runtime`] outside a tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch goes on in its own task and serves later callers.
    pub async fn token(&self) -> Result<AccessToken, Error> {
        self.token_until(self.deadline()).await
    }

    /// The same, with a deadline in place of the `acquire_timeout`.
    pub(crate) async fn token_until(&self, deadline: Instant) -> Result<AccessToken, Error> {
        match self.try_token() {
            Some(token) => Ok(token),
            None => wait::acquire(&self.state, Caller::until(deadline)).await,
        }
    }

    /// A token that lives for at least `min_life` more; fetches one if the
    /// current token does not. For work that must not outlive its token.
    ///
    /// ```
    /// use officernd_auth::{StaticToken, TokenCache};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), officernd_auth::Error> {
    /// let cache = TokenCache::new(StaticToken::new("abc")?);
    /// let token = cache.token_for(Duration::from_secs(600)).await?;
    /// # drop(token);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token), and [`ErrorKind::Denied`] if the server
    /// grants tokens for a shorter life than that.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the fetch goes on.
    pub async fn token_for(&self, min_life: Duration) -> Result<AccessToken, Error> {
        self.start_due();
        wait::acquire(&self.state, Caller::for_life(min_life, self.deadline())).await
    }

    /// Fetches a new token now, or joins the fetch that is in flight. Returns
    /// a token newer than the one at the call, or an error.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token), also while the old token still serves: it
    /// stays in use.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the fetch goes on.
    pub async fn refresh(&self) -> Result<AccessToken, Error> {
        let cached = self.state.slot.get();
        let generation = cached.map_or(0, |cached| cached.issued.token.generation());
        wait::acquire(&self.state, Caller::newer_than(generation, self.deadline())).await
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
    /// tokio runtime with timers.
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

    /// A server answered 401 to this very token: fetch its replacement in the
    /// background. Until that is there, requests go on with the old one.
    ///
    /// Whether this was the first 401 to the current token: `false` for a token
    /// that was replaced, or that is known as rejected. If the replacement is
    /// rejected too, the next one is fetched after 60 s, doubling to 60 min.
    /// Outside a runtime, the next call inside one starts the fetch.
    #[expect(clippy::must_use_candidate, reason = "most callers only report")]
    pub fn reject(&self, token: &AccessToken) -> bool {
        let current = self.state.slot.get();
        // Another cache's token may have the same generation.
        let ours = current
            .is_some_and(|cached| cached.issued.token.header_value() == token.header_value());
        ours && self.reject_generation(token.generation(), false)
    }

    /// The same by the token's generation. `challenged`: the response says
    /// `error="invalid_token"`.
    pub(crate) fn reject_generation(&self, generation: u64, challenged: bool) -> bool {
        let first = self.state.rejected(generation, challenged);
        if self.state.is_check_due(self.state.now()) {
            self.start_due();
        }
        first
    }

    /// A server answered 2xx to this token: its first response, or after a 401.
    pub(crate) fn accept_generation(&self, generation: u64) {
        self.state.accepted(generation);
    }

    /// What the cache is doing now.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        self.state.status()
    }

    /// Follows the status: a value at each event (a fetch starts or ends, a
    /// token is rejected), with the durations of that moment.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.state.subscribe()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.state.settings.clock
    }

    /// Until when a caller that comes now waits.
    pub(crate) fn deadline(&self) -> Instant {
        later(self.clock().now(), self.state.settings.acquire_timeout)
    }

    /// The cache of a token, while it lives.
    pub(crate) fn of(token: &TokenId) -> Option<Self> {
        let state = token.cache()?;
        Some(Self { state })
    }

    /// Whether this is a handle of the same cache.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// The id of a token of this cache.
    pub(crate) fn id_of(&self, token: &AccessToken) -> Arc<TokenId> {
        let generation = token.generation();
        let current = self.state.slot.get();
        match current.filter(|current| current.issued.token.generation() == generation) {
            Some(current) => Arc::clone(current.id()),
            None => TokenId::new(&self.state.this, generation),
        }
    }

    /// Whether a newer token than the rejected one is there, or on its way.
    pub(crate) fn replacement_pending(&self, rejected: u64) -> bool {
        self.state.is_replacing(rejected)
    }

    /// Waits until the fetch that may bring it has ended, at most for the
    /// `acquire_timeout`.
    pub(crate) async fn replacement(&self, rejected: u64) {
        let caller = Caller::newer_than(rejected, self.deadline());
        // Without a newer token, the replay carries the old one: the 401 may
        // have been a passing fault.
        let _ = wait::acquire(&self.state, caller).await;
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}
