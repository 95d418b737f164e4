//! A token of a cache, with its planned lifetime.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::state::State;
use crate::clock::{Clock, NO_TICK, Now, later, runs_with_the_system, tick};
use crate::error::{Error, ErrorKind};
use crate::settings as config;
use crate::sync::{AtomicU64, Ordering};
use crate::token::AccessToken;

/// The largest rounding error of a server that counts lifetimes in whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// More than one tick of the coarse clock.
const MAX_TICK: Duration = Duration::from_millis(20);

/// The settings of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheSettings {
    /// How long before its expiry a token is refreshed, at most half its lifetime.
    pub(crate) refresh_ahead: Duration,
    /// The largest share of the time until the refresh that is cut at random.
    pub(crate) jitter: f32,
    /// How long before its expiry a token is no longer used, at most a tenth of its lifetime.
    pub(crate) expiry_margin: Duration,
    pub(crate) fetch_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) keep_warm: bool,
}

/// A token in the state machine, in the slot and in the response futures.
///
/// Aligned, so that a copy shares no cache line with data that other threads write.
#[repr(align(128))]
pub(crate) struct Token {
    /// The header value of `access`, without its indirection.
    value: HeaderValue,
    /// The last tick of the coarse clock in which the token was found to be live; 0 is none.
    live_at: AtomicU64,
    access: AccessToken,
    /// When its request was about to be sent.
    born: Now,
    /// The age at which it is refreshed in the background.
    refresh_due: Duration,
    /// The age at which it is no longer used.
    end: Duration,
    /// The number of its fetch.
    pub(super) fetch: u64,
    /// Its cache, to which a 401 is reported.
    home: Weak<State>,
}

impl Token {
    /// Creates a token that was requested at `born`. `old` is the token that it replaces, unless that
    /// was rejected. `chance` in `0.0..1.0` picks the jitter.
    ///
    /// Fails with [`ErrorKind::Malformed`] if the token expired before it arrived.
    pub(super) fn new(
        (access, born): (AccessToken, Now),
        fetch: u64,
        old: Option<&Self>,
        settings: &CacheSettings,
        home: Weak<State>,
        (now, chance): (Now, f32),
    ) -> Result<Self, Error> {
        let life = access.expires_in();
        let left = life.saturating_sub(now.since(born));
        let brings_no_life = |old: &Self| {
            old.value == *access.header_value() && left <= old.left(now).saturating_add(ROUNDING)
        };
        // The server issues the same token until it expires, so an earlier refresh would not help.
        let (refresh_due, end) = match old.is_some_and(brings_no_life) {
            true => (life, life),
            false => plan(settings, life, chance),
        };
        let token = Self {
            value: access.header_value().clone(),
            live_at: AtomicU64::new(0),
            access,
            born,
            refresh_due,
            end,
            fetch,
            home,
        };
        // A token that arrives within `expiry_margin` of its expiry is accepted: it is not used, and
        // its replacement is due.
        if token.age(now) < life {
            return Ok(token);
        }
        Err(Error::new(
            ErrorKind::Malformed,
            "the new token had expired before it arrived",
        ))
    }

    /// Copies the token for one service, with separate header bytes and reference counts, so that
    /// threads share none.
    pub(super) fn copy(&self) -> Arc<Self> {
        Arc::new(Self {
            value: self.access.copy_header_value(),
            live_at: AtomicU64::new(0),
            access: self.access.clone(),
            home: Weak::clone(&self.home),
            ..*self
        })
    }

    #[inline(always)]
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.value
    }

    pub(super) fn access(&self) -> &AccessToken {
        &self.access
    }

    pub(crate) fn generation(&self) -> u64 {
        self.access.generation()
    }

    /// Returns the cache of the token, unless it was dropped.
    pub(super) fn home(&self) -> Option<Arc<State>> {
        self.home.upgrade()
    }

    pub(super) fn age(&self, now: Now) -> Duration {
        now.since(self.born)
    }

    /// Returns the time until it expires.
    pub(super) fn left(&self, now: Now) -> Duration {
        self.access.expires_in().saturating_sub(self.age(now))
    }

    /// Returns `true` if requests may use it.
    pub(super) fn is_live(&self, now: Now) -> bool {
        self.age(now) < self.end
    }

    /// Returns `true` if its refresh in the background is due.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.age(now) >= self.refresh_due
    }

    pub(super) fn due_at(&self, now: Now) -> Instant {
        self.reaches(self.refresh_due, now)
    }

    pub(super) fn ends_at(&self, now: Now) -> Instant {
        self.reaches(self.end, now)
    }

    fn reaches(&self, age: Duration, now: Now) -> Instant {
        later(now.monotonic, age.saturating_sub(self.age(now)))
    }

    /// Returns `true` if a request may use it. `look` reads both clocks, and returns `None` if the
    /// token has expired. A positive result is valid for the rest of the tick.
    #[inline(always)]
    pub(super) fn is_usable(&self, clock: &dyn Clock, look: impl FnOnce() -> Option<Now>) -> bool {
        let tick = tick();
        tick == self.live_at.load(Ordering::Relaxed) || self.check_clocks(clock, tick, look)
    }

    #[inline(never)]
    fn check_clocks(
        &self,
        clock: &dyn Clock,
        tick: u64,
        look: impl FnOnce() -> Option<Now>,
    ) -> bool {
        let Some(now) = look() else { return false };
        let lives_on = self.age(now) + MAX_TICK < self.end;
        // The system's ticks do not apply to a clock that is paused or advanced.
        if tick != NO_TICK && lives_on && runs_with_the_system(clock) {
            self.live_at.store(tick, Ordering::Relaxed);
        }
        true
    }
}

impl From<&config::Settings> for CacheSettings {
    fn from(settings: &config::Settings) -> Self {
        Self {
            refresh_ahead: settings.refresh_ahead,
            jitter: settings.jitter,
            expiry_margin: settings.expiry_margin,
            fetch_timeout: settings.fetch_timeout,
            acquire_timeout: settings.acquire_timeout,
            keep_warm: settings.keep_warm,
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// Returns the ages at which a token with this lifetime is refreshed, and no longer used.
fn plan(settings: &CacheSettings, life: Duration, chance: f32) -> (Duration, Duration) {
    let end = life.saturating_sub(settings.expiry_margin.min(life / 10));
    let latest = life.saturating_sub(settings.refresh_ahead.min(life / 2));
    let early = latest.mul_f32((settings.jitter * chance).clamp(0.0, 1.0));
    (latest.saturating_sub(early).min(end), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn refresh_and_end_by_lifetime() {
        let settings = CacheSettings::from(&config::Settings::default());
        let ahead = |refresh_ahead| CacheSettings {
            refresh_ahead,
            ..settings
        };
        let margin = |expiry_margin| CacheSettings {
            expiry_margin,
            ..settings
        };
        #[rustfmt::skip]
        let table = [
            // settings, life, chance -> refresh_due, end
            (settings, s(3600), 0.0, s(2700), s(3590)),
            (settings, s(3600), 1.0, s(2430), s(3590)),
            (settings, s(3600), 0.5, s(2565), s(3590)),
            (settings, s(300), 0.0, s(150), s(290)),
            (settings, s(60), 0.0, s(30), s(54)),
            (settings, s(3), 0.0, ms(1500), ms(2700)),
            (settings, s(1), 1.0, ms(450), ms(900)),
            (ahead(s(0)), s(3600), 0.0, s(3590), s(3590)),
            (ahead(s(5)), s(3600), 0.0, s(3590), s(3590)),
            (ahead(s(86_400)), s(3600), 0.0, s(1800), s(3590)),
            (margin(s(0)), s(3600), 0.0, s(2700), s(3600)),
            (margin(s(900)), s(3600), 1.0, s(2430), s(3240)),
        ];
        for (settings, life, chance, refresh_due, end) in table {
            let planned = plan(&settings, life, chance);
            let off = planned.0.abs_diff(refresh_due);
            assert!(off < ms(1), "{settings:?} {life:?} {planned:?}");
            assert_eq!(planned.1, end, "{settings:?} {life:?}");
        }
    }
}
