//! The state that all handles of a cache share: acts on what [`Lifecycle`] decides.

use std::fmt;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::time::Instant;

use tokio::sync::watch;

use super::lifecycle::{Caller, Decision, Lifecycle, Published, Start};
use super::slot::Slot;
use super::status::TokenStatus;
use super::token::{Minted, Policy, Token};
use crate::clock::{Clock, Now};
use crate::error::Error;
use crate::observability;
use crate::provider::DynProvider;
use crate::rate_limit::RateLimit;
use crate::settings as config;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// What a cache is set up with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) keep_warm: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Settings {
    pub(crate) fn new(settings: &config::Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            policy: Policy::from(settings),
            keep_warm: settings.keep_warm,
            clock,
        }
    }
}

pub(crate) struct State {
    pub(super) slot: Slot,
    pub(super) provider: Box<dyn DynProvider>,
    pub(super) rate_limit: RateLimit,
    pub(super) policy: Policy,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether a timer keeps the cache warm, and the life of that timer.
    pub(super) keep_warm: AtomicBool,
    pub(super) timer: Mutex<Weak<()>>,
    lifecycle: Mutex<Lifecycle>,
    /// Sent at each event: it wakes those who wait for a token.
    pub(super) status: watch::Sender<TokenStatus>,
    pub(super) sent: Arc<Count>,
}

impl State {
    pub(super) fn new(
        provider: Box<dyn DynProvider>,
        rate_limit: Option<RateLimit>,
        settings: Settings,
    ) -> Arc<Self> {
        let rate_limit = rate_limit.or_else(|| provider.rate_limit());
        let Settings {
            policy,
            keep_warm,
            clock,
        } = settings;
        let now = Now::read(&*clock);
        Arc::new_cyclic(|this| {
            let lifecycle = Lifecycle::new(policy, Weak::clone(this), now);
            Self {
                slot: Slot::default(),
                provider,
                rate_limit: rate_limit.unwrap_or_default(),
                policy,
                clock,
                keep_warm: AtomicBool::new(keep_warm),
                timer: Mutex::default(),
                status: watch::Sender::new(lifecycle.status(0, now)),
                lifecycle: Mutex::new(lifecycle),
                sent: Arc::default(),
            }
        })
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    /// A caller wants a token, or asks again.
    pub(super) fn acquire(&self, caller: &mut Caller) -> Decision {
        self.lock(|lifecycle, now| lifecycle.acquire(caller, now))
    }

    /// A token for a caller that cannot wait.
    pub(super) fn usable(&self, newer_than: u64) -> Option<Arc<Token>> {
        self.lock(|lifecycle, now| lifecycle.usable(newer_than, now).cloned())
    }

    /// The fetch that is due in the background.
    pub(super) fn check(&self) -> Option<Start> {
        self.lock(Lifecycle::check)
    }

    /// Whether `check` may have something to start. Waits for no lock: whoever holds it looks.
    pub(super) fn is_check_due(&self, now: Now) -> bool {
        let lifecycle = match self.lifecycle.try_lock() {
            Ok(lifecycle) => lifecycle,
            Err(TryLockError::Poisoned(poison)) => poison.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        lifecycle.next_check_at(now) <= now.monotonic
    }

    pub(super) fn next_check_at(&self) -> Instant {
        self.lock(|lifecycle, now| lifecycle.next_check_at(now))
    }

    /// The task of this fetch runs. `false`: the fetch was given up.
    pub(super) fn begun(&self, number: u64) -> bool {
        self.lock(|lifecycle, _| lifecycle.begun(number))
    }

    /// This fetch may send. `false`: it was given up and must send nothing.
    pub(super) fn granted(&self, number: u64) -> bool {
        self.lock(|lifecycle, now| lifecycle.granted(number, now))
    }

    /// The request of this fetch is over. `sent` is `false` if its connection was never made.
    pub(super) fn answered(&self, number: u64, sent: bool) {
        self.lock(|lifecycle, now| lifecycle.answered(number, sent, now));
    }

    /// The fetch has ended. The slot has the token before any waiting caller
    /// is woken. `None`: it was given up, its result is dropped.
    pub(super) fn ended(
        &self,
        number: u64,
        result: Result<Minted, Error>,
    ) -> Option<Result<Arc<Token>, Error>> {
        let ended = self.lock(|lifecycle, now| {
            let ended = lifecycle.ended(number, result, (now, fastrand::f32()));
            if let Some(Ok(Published { token, .. })) = &ended {
                self.slot.publish(token);
            }
            ended
        })?;
        // Recorders are other people's code: none runs under the lock.
        Some(ended.map(|Published { token, replaced }| {
            let now = self.now();
            let issued = now.wall.checked_sub(token.age(now)).unwrap_or(now.wall);
            observability::token_landed(issued, token.access().expires_in());
            if let Some(age) = replaced {
                observability::token_replaced(age);
            }
            token
        }))
    }

    /// The fetch has ended without a result: its runtime ended, or it panicked.
    /// Whether it was in flight still.
    pub(super) fn lost(&self, number: u64) -> bool {
        self.lock(|lifecycle, now| lifecycle.lost(number, now))
    }

    /// A server answered 401 to this token. Whether that was its first.
    pub(super) fn rejected(&self, generation: u64) -> bool {
        let rejected = self.lock(|lifecycle, now| lifecycle.rejected(generation, now));
        if let Some((age, replace_in)) = rejected {
            observability::rejected(generation, age, replace_in);
        }
        rejected.is_some()
    }

    /// Whether a newer token serves, or is on its way.
    pub(super) fn is_replacing(&self, generation: u64) -> bool {
        self.lock(|lifecycle, now| lifecycle.is_replacing(generation, now))
    }

    pub(super) fn status(&self) -> TokenStatus {
        self.lock(|lifecycle, now| lifecycle.status(self.sent.load(Ordering::Relaxed), now))
    }

    fn lock<R>(&self, act: impl FnOnce(&mut Lifecycle, Now) -> R) -> R {
        // The lifecycle is whole between any two of its events.
        let lifecycle = self.lifecycle.lock();
        let mut lifecycle = lifecycle.unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that the lifecycle sees time in order.
        let now = self.now();
        let events = lifecycle.events;
        let result = act(&mut lifecycle, now);
        if lifecycle.events != events {
            // Under the lock, so that the last status is the newest.
            let sent = self.sent.load(Ordering::Relaxed);
            self.status.send_replace(lifecycle.status(sent, now));
        }
        result
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("policy", &self.policy)
            .field("rate_limit", &self.rate_limit)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
