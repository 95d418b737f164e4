use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::fault::Faults;
use super::journal::Journal;
use super::settings::SimulatorBuilder;
use super::tokens::Tokens;

/// What the handle and all connections share.
pub(super) struct Shared {
    pub(super) started: Instant,
    pub(super) token_faults: Faults,
    pub(super) api_faults: Faults,
    /// A watch, so that a test can wait for a count.
    pub(super) token_requests: watch::Sender<u64>,
    state: Mutex<State>,
}

/// What changes. Its lock is held for a decision, never across an await.
pub(super) struct State {
    pub(super) settings: SimulatorBuilder,
    pub(super) tokens: Tokens,
    pub(super) window: Window,
    pub(super) journal: Journal,
}

impl Shared {
    pub(super) fn new(settings: SimulatorBuilder) -> Self {
        Self {
            started: now(),
            token_faults: Faults::default(),
            api_faults: Faults::default(),
            token_requests: watch::Sender::new(0),
            state: Mutex::new(State {
                settings,
                tokens: Tokens::default(),
                window: Window::default(),
                journal: Journal::default(),
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sliding window over the token requests, the refused ones among them: of
/// the ways a limit can work, the one that forgives least.
#[derive(Default)]
pub(super) struct Window {
    arrivals: VecDeque<Instant>,
}

impl Window {
    /// Counts a request; if it is over the limit, says when one would fit.
    pub(super) fn charge(&mut self, now: Instant, limit: u32, per: Duration) -> Option<Duration> {
        let age = |arrival: &Instant| now.duration_since(*arrival);
        while self.arrivals.front().is_some_and(|first| age(first) >= per) {
            self.arrivals.pop_front();
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let refused = self.arrivals.len() >= limit;
        self.arrivals.push_back(now);
        // Only the last `limit` arrivals decide.
        while self.arrivals.len() > limit {
            self.arrivals.pop_front();
        }
        let oldest = self.arrivals.front().map_or(Duration::ZERO, age);
        refused.then(|| per.saturating_sub(oldest))
    }
}

/// The only place where the simulator reads time.
#[expect(
    clippy::disallowed_methods,
    reason = "a server of its own, which must follow tokio's clock, paused or not"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
