//! The types of `sync.rs` from shuttle, which schedules each of their operations.
//!
//! tokio's `watch` and `Notify` are not replaced: each of their operations is one step.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, PoisonError};

use shuttle::future::JoinHandle;
pub(crate) use shuttle::sync::Mutex;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Swap<T>(Mutex<Option<Arc<T>>>);

pub(crate) type Guard<T> = Option<Arc<T>>;

impl<T> Default for Swap<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Swap<T> {
    pub(crate) fn load(&self) -> Guard<T> {
        self.load_full()
    }

    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn store(&self, value: Option<Arc<T>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// The only runtime.
pub(crate) struct Handle;

impl Handle {
    pub(crate) fn try_current() -> Result<Self, std::convert::Infallible> {
        Ok(Self)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let fetch = shuttle::future::spawn(task);
        FETCHES.with_borrow_mut(|fetches| fetches.push(fetch));
    }
}

thread_local! {
    /// The fetches of this run. A run and all its tasks stay on one thread.
    static FETCHES: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

/// Aborts all fetches, as a runtime does when it shuts down.
pub fn kill_flights() {
    FETCHES.with_borrow(|fetches| fetches.iter().for_each(JoinHandle::abort));
}

/// Aborts all fetches and waits for their ends, because a run must end after its tasks.
pub fn settle_flights() {
    kill_flights();
    for fetch in FETCHES.take() {
        let _ = shuttle::future::block_on(fetch);
    }
}
