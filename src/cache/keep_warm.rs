//! A timer that refreshes the token of a service that idles.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::fetch::start_due;
use super::state::State;
use crate::clock::{later, timeout_at};
use crate::sync::{Ordering, Runtime};

/// How often the timer looks at its cache: so it notices a machine that was
/// suspended.
const INTERVAL: Duration = Duration::from_secs(60);

/// Starts the timer, if the cache is to be kept warm and none runs. At set-up,
/// and again with each fetch, since its runtime may be gone.
///
/// The timer holds no handle of the cache and ends with the last one.
pub(super) fn ensure(state: &Arc<State>) {
    if !state.keep_warm.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Runtime::current() else {
        return;
    };
    let mut timer = state.timer.lock().unwrap_or_else(PoisonError::into_inner);
    if timer.strong_count() == 0 {
        let alive = Arc::new(());
        *timer = Arc::downgrade(&alive);
        let state = Arc::downgrade(state);
        runtime.spawn(async move {
            keep_warm(state).await;
            drop(alive);
        });
    }
}

async fn keep_warm(state: Weak<State>) {
    let Some(mut changes) = state.upgrade().map(|state| state.status.subscribe()) else {
        return;
    };
    loop {
        let Some(strong) = state.upgrade() else {
            return;
        };
        changes.mark_unchanged();
        start_due(&strong);
        let clock = Arc::clone(&strong.clock);
        let until = strong.next_check_at().min(later(clock.now(), INTERVAL));
        drop(strong);
        // Closed is the last handle gone.
        if let Some(Err(_)) = timeout_at(&*clock, until, changes.changed()).await {
            return;
        }
    }
}
