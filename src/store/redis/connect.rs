//! The one connection to the servers.

use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{Cmd, FromRedisValue, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::Mutex;

use super::target::Target;
use crate::clock::{Clock as _, TokioClock};

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
    /// Told apart, so that who comes late with an error drops no newer one.
    number: u64,
    used: Instant,
}

impl Connections {
    pub(super) fn new(target: Target) -> Self {
        let live = Mutex::new(None);
        Self { target, live }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Runs a command; once more if it turns out that the connection was dead
    /// or the server is no master any more. All operations may be repeated.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut again = true;
        loop {
            let (connection, number) = self.connection().await?;
            let answer = match connection {
                Connection::One(mut one) => command.query_async(&mut one).await,
                Connection::Cluster(mut cluster) => command.query_async(&mut cluster).await,
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.forget(number).await;
            if !(again && worth_repeating(&error)) {
                return Err(error);
            }
            again = false;
        }
    }

    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        let now = TokioClock.now();
        // Held while it connects: the others want the same connection.
        let mut live = self.live.lock().await;
        let number = match &mut *live {
            Some(live) if now.saturating_duration_since(live.used) < IDLE => {
                live.used = now;
                return Ok((live.connection.clone(), live.number));
            }
            Some(live) => live.number.wrapping_add(1),
            None => fastrand::u64(..),
        };
        *live = None;
        let connection = self.target.connect().await?;
        *live = Some(Live {
            connection: connection.clone(),
            number,
            used: now,
        });
        Ok((connection, number))
    }

    async fn forget(&self, number: u64) {
        self.live.lock().await.take_if(|live| live.number == number);
    }
}

fn worth_repeating(error: &RedisError) -> bool {
    let read_only = ::redis::ErrorKind::Server(ServerErrorKind::ReadOnly);
    !error.is_timeout() && (error.is_connection_dropped() || error.kind() == read_only)
}
