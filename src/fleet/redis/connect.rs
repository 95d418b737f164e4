//! The one connection to the servers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{Cmd, FromRedisValue, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::Mutex;

use super::target::{LIMIT, Target};
use crate::clock::{Clock as _, TokioClock, later, timeout_at};

/// A connection that was idle for so long may have been cut by something on
/// the way that told nobody. A new one takes milliseconds.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// At most one connection, made when it is needed.
pub(super) struct Connections {
    target: Target,
    live: Mutex<Option<Live>>,
}

struct Live {
    connection: Connection,
    doubtful: Doubt,
    used: Instant,
}

/// Set once a connection has failed to answer: the next operation makes a new one.
type Doubt = Arc<AtomicBool>;

struct Asking {
    doubtful: Doubt,
    answered: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.answered {
            self.doubtful.store(true, Ordering::Relaxed);
        }
    }
}

impl Connections {
    pub(super) fn new(target: Target) -> Self {
        let live = Mutex::new(None);
        Self { target, live }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Runs a command within [`LIMIT`]; once more if it turns out that the
    /// connection was dead or the server is no master any more. All operations
    /// may be repeated.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let until = later(TokioClock.now(), LIMIT);
        let answer = timeout_at(&TokioClock, until, async {
            let mut again = true;
            loop {
                match self.once(command).await {
                    Err(error) if again && worth_repeating(&error) => again = false,
                    answer => return answer,
                }
            }
        });
        let late = || Err(io::Error::from(io::ErrorKind::TimedOut).into());
        answer.await.unwrap_or_else(late)
    }

    async fn once<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let (connection, doubtful) = self.connection().await?;
        // Until the answer is there, and for good if nobody waits for it: what
        // was cut on the way may tell nobody.
        let mut asking = Asking {
            doubtful,
            answered: false,
        };
        let answer = match connection {
            Connection::One(mut one) => command.query_async(&mut one).await,
            Connection::Cluster(mut cluster) => command.query_async(&mut cluster).await,
        };
        asking.answered = answer.is_ok();
        answer
    }

    async fn connection(&self) -> RedisResult<(Connection, Doubt)> {
        let now = TokioClock.now();
        // Held while it connects: the others want the same connection.
        let mut live = self.live.lock().await;
        if let Some(live) = &mut *live {
            let rested = now.saturating_duration_since(live.used);
            if rested < IDLE && !live.doubtful.load(Ordering::Relaxed) {
                live.used = now;
                return Ok((live.connection.clone(), Arc::clone(&live.doubtful)));
            }
        }
        *live = None;
        // Boxed: the client's way there is tens of kilobytes of future, which
        // every operation would carry on its stack.
        let connection = Box::pin(self.target.connect()).await?;
        let doubtful = Doubt::default();
        *live = Some(Live {
            connection: connection.clone(),
            doubtful: Arc::clone(&doubtful),
            used: now,
        });
        Ok((connection, doubtful))
    }
}

fn worth_repeating(error: &RedisError) -> bool {
    let read_only = ::redis::ErrorKind::Server(ServerErrorKind::ReadOnly);
    !error.is_timeout() && (error.is_connection_dropped() || error.kind() == read_only)
}
