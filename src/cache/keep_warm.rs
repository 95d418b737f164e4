//! `keep_warm`: a timer for services that idle.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::core::Core;
use crate::clock::timeout_at;
use crate::sync::Runtime;

/// The timer's task, if `keep_warm` is on. It holds no handle of the cache and
/// ends with the last one.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// Lives as long as the task.
    alive: Mutex<Weak<()>>,
}

impl Timer {
    /// Starts the timer unless it runs: at set-up, and again after each fetch,
    /// since the runtime that carried it may be gone.
    pub(super) fn ensure(&self, core: &Arc<Core>) {
        if !core.settings.keep_warm {
            return;
        }
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if alive.strong_count() > 0 {
            return;
        }
        if let Ok(runtime) = Runtime::current() {
            let life = Arc::new(());
            *alive = Arc::downgrade(&life);
            let core = Arc::downgrade(core);
            runtime.spawn(async move {
                keep(core).await;
                drop(life);
            });
        }
    }
}

async fn keep(core: Weak<Core>) {
    let Some(mut changes) = core.upgrade().map(|core| core.subscribe()) else {
        return;
    };
    loop {
        let Some(strong) = core.upgrade() else { return };
        strong.refresh_behind();
        // After that, since a refresh that starts is a change too.
        changes.mark_unchanged();
        let next = strong.next_look();
        let clock = Arc::clone(&strong.settings.clock);
        drop(strong);
        // Closed is the last handle gone.
        let change = match next {
            Some(next) => timeout_at(&*clock, next, changes.changed()).await,
            None => Some(changes.changed().await),
        };
        if matches!(change, Some(Err(_))) {
            return;
        }
    }
}
