//! shuttle's types. tokio's `watch` and `Notify` stay as they are: each of
//! their operations is one step here.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

use shuttle::future::JoinHandle;
pub(crate) use shuttle::sync::Mutex;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;

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
        let value = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        value.clone()
    }

    pub(crate) fn store(&self, value: Option<Arc<T>>) {
        *self.0.lock().unwrap_or_else(|poison| poison.into_inner()) = value;
    }
}

pub(crate) struct Runtime;

impl Runtime {
    pub(crate) fn current() -> Result<Self, Error> {
        Ok(Self)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let flight = shuttle::future::spawn(task);
        FLIGHTS.with_borrow_mut(|flights| flights.push(flight));
    }
}

thread_local! {
    /// The flights of this run. A run and all its tasks stay on one thread.
    static FLIGHTS: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

/// What a runtime does to its tasks when it shuts down.
pub fn kill_flights() {
    FLIGHTS.with_borrow(|flights| flights.iter().for_each(JoinHandle::abort));
}

/// Waits until no flight is left: a run must not end over their heads.
pub fn settle_flights() {
    kill_flights();
    for flight in FLIGHTS.take() {
        let _ = shuttle::future::block_on(flight);
    }
}
