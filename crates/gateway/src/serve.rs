//! Connections: accepted, bounded, and served to their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::listen::{Listener, Stream};

/// How long to wait before accepting again after a failure.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// More connections than a kernel keeps waiting.
const MAX_BACKLOG: usize = 8192;

pub(crate) struct Limits {
    /// Connections at once; more wait to be accepted.
    pub(crate) connections: usize,
    /// For a head, and for the next one on an idle connection.
    pub(crate) head_timeout: Duration,
    /// For a caller that does not read.
    pub(crate) write_timeout: Duration,
}

/// Accepts and serves connections until `stop` completes. Returns those that are still open.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> GracefulShutdown {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(100)
        .max_buf_size(32 * 1024);
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let start = |stream: Stream, place| {
        // The time-outs of bodies do not run while a caller does not read.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_timeout));
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A client that leaves is no event.
            let _ = (connection.await, place);
        });
    };

    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (accepted, place) = accepted => match accepted {
                Ok(stream) => start(stream, place.ok()),
                // Out of file descriptors, most likely: some will come free.
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
            () = &mut stop => break,
        }
    }
    // The kernel has accepted more: their clients may have sent a request.
    for _ in 0..MAX_BACKLOG {
        let waiting = tokio::time::timeout(Duration::from_millis(1), listener.accept());
        let Ok(Ok(stream)) = waiting.await else { break };
        start(stream, None);
    }
    connections
}
