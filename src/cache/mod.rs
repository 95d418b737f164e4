//! A cache keeps one token ready. It knows the provider trait and the clock;
//! it knows no requests.

mod backoff;
mod core;
mod fetch;
mod keep_warm;
mod landing;
mod lifetime;
mod report;
mod slot;
mod status;
mod token_id;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub(crate) use self::backoff::Hold;
pub(crate) use self::core::Settings;
use self::core::{Core, Step, Successor, Wait};
use self::fetch::GRACE;
pub(crate) use self::lifetime::Plan;
use self::lifetime::Stage;
use self::slot::CachedToken;
pub(crate) use self::slot::{SlotReader, TokenHeader};
pub use self::status::{Phase, TokenStatus};
pub(crate) use self::token_id::TokenId;
use crate::allowance::Allowance;
use crate::clock::{Clock, TokioClock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::provider::{DynProvider, TokenProvider};
use crate::sync::{Ordering, Runtime};
use crate::token::AccessToken;

/// So many callers may wait for one token; one more is refused at once.
const MOST_WAITING: usize = 65_536;

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
    core: Arc<Core>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            fetch_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(30),
            keep_warm: false,
            clock: Arc::new(TokioClock),
        }
    }
}

impl TokenCache {
    /// A cache of this provider's tokens, with every setting at its default.
    /// The [builder](crate::OfficeRndAuthLayer::builder) has the settings.
    #[must_use]
    pub fn new(provider: impl TokenProvider) -> Self {
        Self::with_settings(Box::new(provider), None, Settings::default())
    }

    pub(crate) fn with_settings(
        provider: Box<dyn DynProvider>,
        allowance: Option<Allowance>,
        settings: Settings,
    ) -> Self {
        let core = Core::new(provider, allowance, settings);
        core.warm.ensure(&core);
        Self { core }
    }

    /// The token, if there is one that a request may carry now. Never waits,
    /// never fails; starts a refresh in the background when one is due.
    ///
    /// `None`: there is none yet, or it is dead, or it is about to die and
    /// requests should wait for the next. [`token`](Self::token) knows which.
    #[must_use]
    pub fn try_token(&self) -> Option<AccessToken> {
        let entry = self.core.slot.load();
        let entry = entry.as_ref()?;
        self.serves(entry).then(|| entry.token.clone())
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
        let slot = &self.core.slot;
        let loaded;
        let token = match reader.current(slot) {
            Some(token) => token,
            None => {
                reader.update(slot);
                loaded = slot.load();
                loaded.as_deref()?
            }
        };
        let clock = &*self.core.settings.clock;
        token.header(clock, || self.serves(token)).map(insert)
    }

    /// The same without a reader.
    #[inline(always)]
    pub(crate) fn try_header_once<R>(&self, insert: impl FnOnce(&TokenHeader) -> R) -> Option<R> {
        let loaded = self.core.slot.load();
        let token = loaded.as_deref()?;
        let clock = &*self.core.settings.clock;
        token.header(clock, || self.serves(token)).map(insert)
    }

    /// Whether a request may carry this token now. Starts what is due.
    #[cold]
    fn serves(&self, entry: &CachedToken) -> bool {
        match self.core.stage(entry) {
            Stage::Fresh if !entry.is_rejected() => {}
            Stage::Fresh | Stage::Ahead => self.core.refresh_behind(),
            Stage::Margin | Stage::Dead => return false,
        }
        true
    }

    /// The token; waits for one if there is none to use.
    ///
    /// A token within its margin (the last 10 s) is waited past as long as its
    /// life allows, and used if the new one does not come.
    ///
    /// # Errors
    ///
    /// The error of the fetch, shared by all who waited for it. While a failed
    /// fetch holds the next one back, the same error at once, with
    /// [`retry_after`](Error::retry_after). [`ErrorKind::Timeout`] after the
    /// `acquire_timeout`. [`ErrorKind::Runtime`] outside a tokio runtime with
    /// timers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch goes on in its own task and serves whoever asks
    /// next.
    pub async fn token(&self) -> Result<AccessToken, Error> {
        if let Some(token) = self.try_token() {
            return Ok(token);
        }
        self.acquire(false).await
    }

    /// Fetches a new token now, or joins the fetch that is under way.
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
        self.acquire(true).await
    }

    /// Waits until there is a token: for start-up and readiness.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the fetch goes on.
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.token().await.map(drop)
    }

    /// A server answered 401 to this very token: fetch its replacement in the
    /// background. Until that lands requests go on with the old one.
    ///
    /// Whether this was news: `false` for a token that is not the current one
    /// any more, or already known as rejected. If the replacement is rejected
    /// too, the next is held back for 60 s, doubling to 60 min. Outside a
    /// runtime, the next call inside one starts the fetch.
    #[expect(clippy::must_use_candidate, reason = "most callers only tell")]
    pub fn reject(&self, token: &AccessToken) -> bool {
        let current = self.core.slot.get();
        // Another cache's token may have the same number.
        let ours = current.is_some_and(|entry| entry.token.header_value() == token.header_value());
        ours && self.core.reject(token.generation())
    }

    /// What the cache is doing now.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        self.core.status()
    }

    /// Follows the status: a value at each event (a fetch starts or ends, a
    /// token is rejected), with the durations of that moment.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.core.subscribe()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.core.settings.clock
    }

    /// As [`reject`](Self::reject), by the token's number.
    pub(crate) fn reject_generation(&self, generation: u64) -> bool {
        self.core.reject(generation)
    }

    /// Whether this is a handle of the same cache.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    /// The id of a token of this cache.
    pub(crate) fn id_of(&self, token: &AccessToken) -> Arc<TokenId> {
        let current = self.core.slot.get();
        match current.filter(|current| current.token.generation() == token.generation()) {
            Some(current) => Arc::clone(current.id()),
            None => TokenId::new(&self.core.this, token.generation()),
        }
    }

    /// Whether a newer token than the rejected one is there, or on its way.
    pub(crate) fn replacement_pending(&self, rejected: u64) -> bool {
        !matches!(self.core.successor(rejected), Successor::Held)
    }

    /// Waits until the fetch that may bring it has ended, at most for the
    /// `acquire_timeout`.
    pub(crate) async fn replacement(&self, rejected: u64) {
        let deadline = later(self.core.now(), self.core.settings.acquire_timeout);
        while let Successor::Coming(mut wait) = self.core.successor(rejected) {
            if Runtime::current().is_err()
                || !matches!(self.land(&mut wait, deadline).await, Landed::GivenUp)
            {
                return;
            }
        }
    }

    async fn acquire(&self, fresh: bool) -> Result<AccessToken, Error> {
        /// A flight that ends without a result (its runtime died, the provider
        /// panicked) is started anew, but not for ever.
        const MOST_LOST: u32 = 1;

        let _waiting = Waiting::enter(&self.core)?;
        let deadline = later(self.core.now(), self.core.settings.acquire_timeout);
        let mut lost = 0;
        loop {
            let mut wait = match self.core.step(fresh)? {
                Step::Serve(token) => return Ok(token),
                Step::Wait(wait) => wait,
            };
            if let Some(launch) = wait.launch.take() {
                launch.spawn();
            }
            let old = wait.old.take();
            let until = old.as_ref().map_or(deadline, |old| old.1.min(deadline));
            let landed = self.land(&mut wait, until).await;
            // It may have died meanwhile, by the wall clock.
            let living = |entry: &Arc<CachedToken>| self.core.stage(entry) != Stage::Dead;
            let old = old.map(|(entry, _)| entry).filter(living);
            let old = old.map(|entry| entry.token.clone());
            match landed {
                // Nobody looked until it was dead: a suspend. Once more.
                Landed::Token(_) if lost < MOST_LOST && self.is_dead() => lost += 1,
                Landed::Token(token) => return Ok(token),
                Landed::Failed(error) => match old {
                    Some(token) => return Ok(token),
                    // The flight was an earlier caller's; this one has longer.
                    None if error.is_not_attempted() && self.frees_by(&error, deadline) => {}
                    None => return Err(error),
                },
                Landed::Lost if lost < MOST_LOST => lost += 1,
                Landed::Lost => {
                    return Err(Error::new(
                        ErrorKind::Runtime,
                        "the token fetch ended without a result, again and again: \
                         the provider panics, or its runtime shuts down",
                    ));
                }
                Landed::GivenUp => {}
                Landed::TooLate if old.is_none() && self.core.now() < deadline => {}
                Landed::TooLate => {
                    return old.or_else(|| self.try_token()).ok_or_else(|| {
                        Error::new(
                            ErrorKind::Timeout,
                            "no token arrived within the acquire timeout",
                        )
                    });
                }
            }
        }
    }

    fn is_dead(&self) -> bool {
        let entry = self.core.slot.get();
        entry.is_some_and(|entry| self.core.stage(&entry) == Stage::Dead)
    }

    fn frees_by(&self, error: &Error, deadline: Instant) -> bool {
        let after = error.retry_after().unwrap_or(Duration::MAX);
        later(self.core.now(), after) <= deadline
    }

    /// Waits for a flight.
    async fn land(&self, wait: &mut Wait, until: Instant) -> Landed {
        let clock = &*self.core.settings.clock;
        let overdue = later(wait.overdue.max(clock.now()), GRACE);
        let landed = wait.outcome.wait_for(Option::is_some);
        match timeout_at(clock, until.min(overdue), landed).await {
            Some(Ok(outcome)) => match &*outcome {
                Some(Ok(token)) => Landed::Token(token.clone()),
                Some(Err(error)) => Landed::Failed(error.clone()),
                None => Landed::Lost,
            },
            Some(Err(_)) => Landed::Lost,
            None if overdue < until => {
                self.core.abandon(wait.id, overdue);
                Landed::GivenUp
            }
            None => Landed::TooLate,
        }
    }
}

/// How a wait for a flight ended.
enum Landed {
    Token(AccessToken),
    Failed(Error),
    /// The flight is gone without a result.
    Lost,
    /// The flight stood still, or it has got to its next stage: look again.
    GivenUp,
    TooLate,
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

/// Counts those who wait, so that their number has a bound.
struct Waiting<'a>(&'a Core);

impl<'a> Waiting<'a> {
    fn enter(core: &'a Core) -> Result<Self, Error> {
        let waiting = Self(core);
        if core.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING {
            return Ok(waiting);
        }
        Err(Error::new(
            ErrorKind::RateLimited,
            "65,536 requests wait for a token already; this one was not added",
        ))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
