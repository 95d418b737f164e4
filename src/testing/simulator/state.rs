use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::fault::Faults;
use super::journal::Journal;
use super::rate::Window;
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

/// The only place where the simulator reads time.
#[expect(
    clippy::disallowed_methods,
    reason = "a server of its own, which must follow tokio's clock, paused or not"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
