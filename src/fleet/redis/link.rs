//! The one connection of a store: made when it is needed, replaced when it is
//! lost or silent.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{RedisError, RedisResult, ServerErrorKind};

use super::connect::{Connected, Connector};
use super::connection::Connection;
use crate::clock::{Clock as _, TokioClock, later, timeout_at};

/// A connection that was idle for this long may have been cut by something on
/// the way, without a word. A new one takes milliseconds.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// The time limits of an operation and of its one repetition, connecting included.
const OPERATION_TIMEOUTS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

pub(super) enum Link {
    /// Connects by itself.
    Made(Box<Made>),
    /// The user's connection, which takes care of itself.
    Own(Connection),
}

pub(super) struct Made {
    connector: Arc<Connector>,
    /// With when it was last used.
    live: Mutex<Option<(Connected, Instant)>>,
    connecting: tokio::sync::Mutex<()>,
}

/// Marks the connection as lost if an operation is dropped or fails: something
/// on the way may have cut it without a word.
struct InUse {
    lost: Option<Arc<AtomicBool>>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(lost) = &self.lost {
            lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Link {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self::Made(Box::new(Made {
            connector,
            live: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }))
    }

    pub(super) fn connector(&self) -> Option<&Arc<Connector>> {
        match self {
            Self::Made(made) => Some(&made.connector),
            Self::Own(_) => None,
        }
    }

    /// Runs an operation within 500 ms; once more, within 1 s over a new
    /// connection, if it was not answered or the server is no master any more.
    pub(super) async fn run<T, F>(&self, operation: impl Fn(Connection) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let made = match self {
            Self::Made(made) => made,
            Self::Own(connection) => return operation(connection.clone()).await,
        };
        for limit in OPERATION_TIMEOUTS {
            let until = later(TokioClock.now(), limit);
            match timeout_at(&TokioClock, until, made.once(&operation)).await {
                Some(Err(error)) if !is_an_answer(&error) => {}
                Some(answer) => return answer,
                None => {}
            }
        }
        Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
    }
}

impl Made {
    async fn once<T, F>(&self, operation: &impl Fn(Connection) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let live = self.connected().await?;
        let mut in_use = InUse {
            lost: Some(Arc::clone(&live.lost)),
        };
        let answer = operation(live.connection).await;
        if answer.as_ref().err().is_none_or(is_an_answer) {
            in_use.lost = None;
        }
        answer
    }

    async fn connected(&self) -> RedisResult<Connected> {
        if let Some(live) = self.usable() {
            return Ok(live);
        }
        // Held while it connects: the others want the same connection.
        let _connecting = self.connecting.lock().await;
        if let Some(live) = self.usable() {
            return Ok(live);
        }
        // Boxed: the client's way there is kilobytes of future, which every
        // operation would carry on its stack.
        let connected = Box::pin(self.connector.connect()).await?;
        *self.lock() = Some((connected.clone(), TokioClock.now()));
        Ok(connected)
    }

    fn usable(&self) -> Option<Connected> {
        let now = TokioClock.now();
        let mut slot = self.lock();
        let (live, used_at) = slot.as_mut()?;
        let idle = now.saturating_duration_since(*used_at);
        if idle >= MAX_IDLE || live.lost.load(Ordering::Relaxed) {
            *slot = None;
            return None;
        }
        *used_at = now;
        Some(live.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Connected, Instant)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server has answered, if only to refuse.
fn is_an_answer(error: &RedisError) -> bool {
    let read_only = ::redis::ErrorKind::Server(ServerErrorKind::ReadOnly);
    error.kind() != read_only && error.code().is_some()
}
