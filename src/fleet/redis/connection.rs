//! A connection of any kind.

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster_async::ClusterConnection;
use ::redis::{Cmd, Pipeline, RedisFuture, Value};

/// A connection of any kind.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
    Own(Box<dyn OwnConnection>),
}

/// A connection that the user of the crate brought.
pub(super) trait OwnConnection: ConnectionLike + Send + Sync {
    fn boxed(&self) -> Box<dyn OwnConnection>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> OwnConnection for C {
    fn boxed(&self) -> Box<dyn OwnConnection> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn OwnConnection> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
            Self::Own(own) => own.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(commands, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(commands, offset, count),
            Self::Own(own) => own.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
            Self::Own(own) => own.get_db(),
        }
    }
}
