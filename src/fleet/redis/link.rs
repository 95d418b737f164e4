//! The one connection of a store: made when it is needed, replaced when it is
//! lost or silent.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{RedisError, RedisResult, ServerErrorKind};

use super::connect::{Connected, Connector};
use super::connection::Connection;
use crate::clock::{Clock as _, TokioClock, later};

/// A connection that was idle for this long may have been cut by something on
/// the way, without a word. A new one takes milliseconds.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// How often an operation is repeated while its slot moves to another node of
/// a cluster, and the pause between. The caller's limit ends it sooner.
const MAX_PAUSES: u32 = 50;
const MOVING_PAUSE: Duration = Duration::from_millis(20);

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

    pub(super) async fn connect(&self) -> RedisResult<()> {
        match self {
            Self::Made(made) => made.connected().await.map(drop),
            Self::Own(_) => Ok(()),
        }
    }

    /// The connection, if there is one: does not wait.
    pub(super) fn live(&self) -> Option<Connected> {
        match self {
            Self::Made(made) => made.usable(),
            Self::Own(_) => None,
        }
    }

    /// Runs an operation; once more if the connection turns out to be dead, or
    /// the server to be no master any more; and again while a slot moves.
    pub(super) async fn run<T, F>(&self, operation: impl Fn(Connection) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let made = match self {
            Self::Made(made) => made,
            Self::Own(connection) => return operation(connection.clone()).await,
        };
        let mut pauses = 0;
        let mut repeated = false;
        loop {
            match made.once(&operation).await {
                Err(error) if is_moving(&error) && pauses < MAX_PAUSES => {
                    pauses += 1;
                    let until = later(TokioClock.now(), MOVING_PAUSE);
                    TokioClock.sleep_until(until).await;
                }
                Err(error) if is_worth_repeating(&error) && !repeated => repeated = true,
                answer => return answer,
            }
        }
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

/// Some of the keys are on one node of a cluster and some on another.
fn is_moving(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ::redis::ErrorKind::Server(
            ServerErrorKind::TryAgain | ServerErrorKind::Ask | ServerErrorKind::ClusterDown
        )
    )
}

fn is_worth_repeating(error: &RedisError) -> bool {
    let read_only = ::redis::ErrorKind::Server(ServerErrorKind::ReadOnly);
    !error.is_timeout() && (error.is_connection_dropped() || error.kind() == read_only)
}
