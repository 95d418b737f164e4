//! The state that all handles of a cache share.

use std::fmt;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::time::Instant;

use tokio::sync::watch;

use super::lifecycle::Lifecycle;
use super::slot::Slot;
use super::status::TokenStatus;
use super::token::{CacheSettings, Token};
use crate::clock::{Clock, Now};
use crate::error::Error;
use crate::observability;
use crate::provider::DynProvider;
use crate::rate_limit::RateLimit;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::token::AccessToken;

pub(crate) struct State {
    pub(super) slot: Slot,
    pub(super) provider: Box<dyn DynProvider>,
    pub(super) rate_limit: RateLimit,
    pub(super) settings: CacheSettings,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether a timer keeps the cache warm.
    pub(super) keep_warm: AtomicBool,
    /// Alive while the timer runs.
    pub(super) timer: Mutex<Weak<()>>,
    lifecycle: Mutex<Lifecycle>,
    /// Sent at each event, which wakes the callers that wait for a token.
    pub(super) status: watch::Sender<TokenStatus>,
    /// The number of token requests that have ended.
    pub(super) token_requests: Arc<Count>,
}

impl State {
    pub(super) fn new(
        provider: Box<dyn DynProvider>,
        rate_limit: Option<RateLimit>,
        settings: CacheSettings,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let now = Now::read(&*clock);
        Arc::new_cyclic(|this| {
            let lifecycle = Lifecycle::new(settings, Weak::clone(this), now);
            Self {
                slot: Slot::default(),
                provider,
                rate_limit: rate_limit.unwrap_or_default(),
                settings,
                clock,
                keep_warm: AtomicBool::new(settings.keep_warm),
                timer: Mutex::default(),
                status: watch::Sender::new(lifecycle.status(0, now)),
                lifecycle: Mutex::new(lifecycle),
                token_requests: Arc::default(),
            }
        })
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    /// Returns `true` if a fetch may be due. Does not wait for the lock, so that a request with a token
    /// never blocks; the next request checks again.
    pub(super) fn is_check_due(&self, now: Now) -> bool {
        let lifecycle = match self.lifecycle.try_lock() {
            Ok(lifecycle) => lifecycle,
            Err(TryLockError::Poisoned(poison)) => poison.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        lifecycle.next_check_at(now) <= now.monotonic
    }

    pub(super) fn next_check_at(&self) -> Instant {
        self.with(|lifecycle, now| lifecycle.next_check_at(now))
    }

    /// Ends the fetch. Waiting callers wake after the slot has the token. Returns `None` if the fetch
    /// was given up; its result is then dropped.
    pub(super) fn ended(
        &self,
        number: u64,
        result: Result<(AccessToken, Now), Error>,
    ) -> Option<Result<Arc<Token>, Error>> {
        let (ended, replaced) = self.with(|lifecycle, now| {
            let old = self.slot.get();
            let ended = lifecycle.ended(number, result, (now, fastrand::f32()));
            if let Some(Ok(token)) = &ended {
                self.slot.publish(token);
            }
            (ended, old.map(|old| old.age(now)))
        });
        // Outside the lock, because a metrics recorder may run any code.
        if let Some(Ok(token)) = &ended {
            let now = self.now();
            let issued = now.wall.checked_sub(token.age(now)).unwrap_or(now.wall);
            observability::token_landed(issued, token.access().expires_in());
            if let Some(age) = replaced {
                observability::token_replaced(age);
            }
        }
        ended
    }

    pub(super) fn status(&self) -> TokenStatus {
        self.with(|lifecycle, now| {
            lifecycle.status(self.token_requests.load(Ordering::Relaxed), now)
        })
    }

    /// Runs `act` on the lifecycle under the lock, and sends the status if it has changed.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Lifecycle, Now) -> R) -> R {
        // A panic between two events leaves the lifecycle consistent.
        let lifecycle = self.lifecycle.lock();
        let mut lifecycle = lifecycle.unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that the lifecycle sees time in order.
        let now = self.now();
        let events = lifecycle.events;
        let result = act(&mut lifecycle, now);
        if lifecycle.events != events {
            // Under the lock, so that the last status is the newest.
            let token_requests = self.token_requests.load(Ordering::Relaxed);
            self.status
                .send_replace(lifecycle.status(token_requests, now));
        }
        result
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("settings", &self.settings)
            .field("rate_limit", &self.rate_limit)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
