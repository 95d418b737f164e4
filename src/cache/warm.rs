//! `keep_warm`: a timer for services that idle.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::JoinHandle;

use super::core::Core;
use super::flight;
use crate::clock::timeout_at;

/// The timer's task, if `keep_warm` is on. It holds no handle of the cache and
/// ends with the last one.
#[derive(Debug, Default)]
pub(super) struct Timer {
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Timer {
    /// Starts the timer unless it runs: at set-up, and again after each fetch,
    /// since the runtime that carried it may be gone.
    pub(super) fn ensure(&self, core: &Arc<Core>) {
        if !core.settings.keep_warm {
            return;
        }
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        if let Ok(runtime) = flight::runtime() {
            *task = Some(runtime.spawn(keep(Arc::downgrade(core))));
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
