//! std, arc-swap and tokio.

use std::future::Future;
pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::runtime::Handle;

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
        Ok(Self(handle))
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
}
