//! The state that all handles of a cache share: acts on what [`Lifecycle`] decides.

use std::fmt;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::watch;

use super::TokenId;
use super::attempt::Completed;
use super::caller::Caller;
use super::lifecycle::{Decision, Due, Lifecycle};
use super::lifetime::Freshness;
use super::locked::Locked;
use super::next_check::NextCheck;
use super::settings::Settings;
use super::slot::{CachedToken, Slot};
use super::status::TokenStatus;
use crate::clock::{Age, Now, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::observability;
use crate::provider::DynProvider;
use crate::rate_limit::{RateLimit, Urgency};
use crate::sync::{AtomicBool, AtomicUsize, Mutex};
use crate::token::AccessToken;

pub(crate) struct State {
    pub(super) slot: Slot,
    /// For the ids of this cache's tokens.
    pub(super) this: Weak<Self>,
    pub(super) provider: Box<dyn DynProvider>,
    pub(super) settings: Settings,
    pub(super) rate_limit: RateLimit,
    /// Whether a timer keeps the cache warm, and the life of that timer.
    pub(super) keep_warm: AtomicBool,
    pub(super) timer: Mutex<Weak<()>>,
    /// Whether a request asked for the token since the timer last looked.
    pub(super) used: AtomicBool,
    locked: Mutex<Locked>,
    next_check: NextCheck,
    /// Counts the changes that end a wait.
    pub(super) changes: watch::Sender<u64>,
    pub(super) waiting: AtomicUsize,
    pub(super) sent: Arc<Count>,
}

impl State {
    pub(super) fn new(
        provider: Box<dyn DynProvider>,
        rate_limit: Option<RateLimit>,
        settings: Settings,
    ) -> Arc<Self> {
        let rate_limit = rate_limit.or_else(|| provider.rate_limit());
        let lifecycle = Lifecycle::new(settings.policy, settings.max_permanent_backoff());
        let now = Now::read(&*settings.clock);
        let sent = Arc::default();
        Arc::new_cyclic(|this| Self {
            slot: Slot::default(),
            this: Weak::clone(this),
            provider,
            rate_limit: rate_limit.unwrap_or_default(),
            keep_warm: AtomicBool::new(settings.keep_warm),
            timer: Mutex::default(),
            used: AtomicBool::new(true),
            next_check: NextCheck::new(now),
            changes: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            locked: Mutex::new(Locked::new(lifecycle, &sent)),
            sent,
            settings,
        })
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&*self.settings.clock)
    }

    /// A caller wants a token, or asks again.
    pub(super) fn acquire(&self, caller: &mut Caller) -> Decision {
        self.lock(|locked, now| {
            let decision = locked.lifecycle.acquire(caller, now);
            if let Decision::Wait { start: Some(_), .. } = &decision {
                locked.publish_status(now);
            }
            decision
        })
    }

    /// The token of the slot, if `acquire` would decide that it serves this caller.
    pub(super) fn ready(&self, caller: &Caller) -> Option<AccessToken> {
        let slot = self.slot.load();
        let issued = &slot.as_deref().filter(|_| caller.takes_any_token())?.issued;
        let serves = issued.freshness(self.now()) <= Freshness::RefreshDue;
        serves.then(|| issued.token.clone())
    }

    /// A token for a caller that cannot wait.
    pub(super) fn usable(&self, caller: &Caller) -> Option<AccessToken> {
        let usable = self.lock(|locked, now| locked.lifecycle.usable(caller, now))?;
        Some(usable.token.clone())
    }

    /// Returns what is due in the background.
    pub(super) fn check(&self) -> Option<Due> {
        self.lock(|locked, now| {
            let due = locked.lifecycle.check(now);
            if let Some(Due::Fetch(_)) = &due {
                locked.publish_status(now);
            }
            due
        })
    }

    /// Whether `check` may have something to start: no lock, for every request
    /// with a token that is not fresh.
    pub(super) fn is_check_due(&self, now: Now) -> bool {
        self.next_check.is_over(now)
    }

    pub(super) fn next_check_at(&self) -> Instant {
        self.lock(|locked, now| locked.lifecycle.next_check_at(now))
    }

    /// The fetch goes into its next stage, which ends by `until`. `false`: it
    /// was given up and must send nothing.
    pub(super) fn advanced(&self, id: u64, until: Instant) -> bool {
        self.lock(|locked, _| locked.lifecycle.fetch.advanced(id, until))
    }

    /// How urgent this fetch is, for as long as it is in flight.
    pub(super) fn urgency_of(&self, id: u64) -> watch::Receiver<Urgency> {
        self.lock(|locked, _| locked.running.urgency_of(id))
    }

    /// The fetch has ended. The slot has the token before any waiting caller
    /// is woken. `None`: it was given up, its result is dropped.
    pub(super) fn completed(
        &self,
        id: u64,
        result: Result<(AccessToken, Age), Error>,
    ) -> Option<Completed> {
        if let Err(error) = &result {
            if error.kind() == ErrorKind::RateLimited && !error.is_not_attempted() {
                let clock = &*self.settings.clock;
                self.rate_limit.refused(error.retry_after(), clock);
            }
        }
        let completed = self.lock(|locked, now| {
            let completed = locked
                .lifecycle
                .completed(id, result, now, fastrand::f32())?;
            if let Completed::Published { issued, .. } = &completed {
                let id = TokenId::new(&self.this, issued.token.generation());
                self.slot.publish(CachedToken::new(id, Arc::clone(issued)));
            }
            locked.publish_status(now);
            Some(completed)
        })?;
        self.wake();
        // Recorders are other people's code: none runs under the lock.
        if let Completed::Published { issued, replaced } = &completed {
            let now = self.now();
            let issued_at = now.wall.checked_sub(issued.age(now)).unwrap_or(now.wall);
            observability::token_landed(issued_at, issued.token.expires_in());
            if let Some(age) = replaced {
                observability::token_replaced(*age);
            }
        }
        Some(completed)
    }

    /// Asks the provider, under the `fetch_timeout`, whether it has other
    /// credentials than those that the server refused. They end the backoff.
    pub(super) async fn credentials_changed(&self) -> bool {
        let clock = &*self.settings.clock;
        let until = later(clock.now(), self.settings.fetch_timeout);
        let changed = timeout_at(clock, until, self.provider.credentials_changed()).await;
        if changed != Some(true) {
            return false;
        }
        self.lock(|locked, now| locked.lifecycle.fetch.credentials_changed(now));
        self.wake();
        true
    }

    /// The fetch has ended without a result: its runtime ended, or it panicked.
    /// Whether it was in flight still.
    pub(super) fn lost(&self, id: u64) -> bool {
        let lost = self.lock(|locked, now| {
            let lost = locked.lifecycle.fetch.lost(id, now);
            if lost {
                locked.publish_status(now);
            }
            lost
        });
        if lost {
            self.wake();
        }
        lost
    }

    /// A server answered 401 to this token. Whether that was its first.
    pub(super) fn rejected(&self, generation: u64, challenged: bool) -> bool {
        let replace_in = self.lock(|locked, now| {
            let at = locked.lifecycle.rejected(generation, challenged, now);
            self.doubt(generation, true);
            if at.is_some() {
                locked.publish_status(now);
            }
            Some(at?.saturating_duration_since(now.monotonic))
        });
        if let Some(replace_in) = replace_in {
            observability::rejected(generation, replace_in);
        }
        replace_in.is_some()
    }

    /// A server answered 2xx to this token: its first response, or after a 401.
    pub(super) fn accepted(&self, generation: u64) {
        self.lock(|locked, _| {
            locked.lifecycle.accepted(generation);
            self.doubt(generation, false);
        });
    }

    fn doubt(&self, generation: u64, doubted: bool) {
        let current = self.slot.get();
        if let Some(cached) = current.filter(|cached| cached.id().generation() == generation) {
            cached.doubt(doubted);
        }
    }

    /// Whether a newer token serves, or is on its way.
    pub(super) fn is_replacing(&self, generation: u64) -> bool {
        self.lock(|locked, now| locked.lifecycle.is_replacing(generation, now))
    }

    pub(super) fn status(&self) -> TokenStatus {
        self.lock(|locked, now| locked.status(now))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.lock(Locked::subscribe)
    }

    fn wake(&self) {
        self.changes
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn lock<R>(&self, act: impl FnOnce(&mut Locked, Now) -> R) -> R {
        // The lifecycle is whole between any two of its events.
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that the lifecycle sees time in order.
        let now = self.now();
        let result = act(&mut locked, now);
        let fetch = locked.lifecycle.fetch.running();
        locked.running.update(fetch);
        self.next_check
            .set(locked.lifecycle.next_check_at(now), now);
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
