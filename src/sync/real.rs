//! std, arc-swap and tokio.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
pub(crate) use std::sync::Mutex;
use std::sync::PoisonError;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, Id};

use crate::error::{Error, ErrorKind};

/// A slot that is read without a lock.
pub(crate) type Swap<T> = arc_swap::ArcSwapOption<T>;
/// A value read from it, borrowed.
pub(crate) type Guard<T> = arc_swap::Guard<Option<std::sync::Arc<T>>>;

/// A runtime that can carry a flight.
pub(crate) struct Runtime(Handle);

impl Runtime {
    /// The one that this is called in.
    pub(crate) fn current() -> Result<Self, Error> {
        let handle = Handle::try_current().map_err(|_| {
            Error::new(
                ErrorKind::Runtime,
                "no token yet, and no tokio runtime here to fetch one on; call inside a runtime",
            )
        })?;
        if has_timers(&handle) {
            return Ok(Self(handle));
        }
        Err(Error::new(
            ErrorKind::Runtime,
            "the tokio runtime has no timers; build it with enable_time() or enable_all()",
        ))
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
}

/// The runtimes that were found without timers, the last ones.
static WITHOUT_TIMERS: Mutex<VecDeque<Id>> = Mutex::new(VecDeque::new());
const MAX_REMEMBERED: usize = 16;

/// Whether this runtime, in which the caller is, has timers.
///
/// Only a panic shows that it has none. That one is caught, but the process's
/// panic hook sees it: so it happens once for each runtime, and outside every
/// lock.
fn has_timers(handle: &Handle) -> bool {
    let without = || {
        WITHOUT_TIMERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    let id = handle.id();
    if without().contains(&id) {
        return false;
    }
    let timer = || drop(tokio::time::sleep(Duration::ZERO));
    let found = catch_unwind(AssertUnwindSafe(timer)).is_ok();
    if !found {
        let mut without = without();
        if without.len() == MAX_REMEMBERED {
            without.pop_front();
        }
        without.push_back(id);
    }
    found
}
