//! A timer that refreshes the token without requests.

use std::pin::pin;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::fetch::start_due;
use super::state::State;
use crate::clock::{later, timeout_at};
use crate::sync::{Handle, Ordering};

/// The longest sleep of the timer. Timers stop while the machine is suspended.
const INTERVAL: Duration = Duration::from_secs(60);

/// Starts the timer, if the cache is kept warm and no timer runs. Called when the cache is created, and
/// with each fetch, because the runtime of the last timer may have ended.
///
/// The timer holds no handle of the cache. It ends when the last handle is dropped.
pub(super) fn ensure(state: &Arc<State>) {
    if !state.keep_warm.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
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
        // An error: the last handle was dropped.
        if let Some(Err(_)) = timeout_at(&*clock, until, pin!(changes.changed())).await {
            return;
        }
    }
}
