//! Accepts connections, bounds their number, and serves them to their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::config::Config;
use crate::listen::{Listener, Stream};

/// More connections than a kernel queues for a listener.
const MAX_BACKLOG: usize = 8192;

/// Serves at most this many connections at once until `stop` completes; more wait to be accepted.
/// Returns those that are still open.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    connections: usize,
    head_timeout: Duration,
    config: &Config,
    stop: impl Future<Output = ()>,
) -> GracefulShutdown {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(100)
        .max_buf_size(32 * 1024);
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(connections));
    let start = |stream: Stream, permit| {
        // The body timeouts do not run while a caller does not read.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(config.body_timeout));
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Callers disconnect at any time: not worth a log line.
            let _ = (connection.await, permit);
        });
    };

    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            (accepted, permit) = accepted => match accepted {
                Ok(stream) => start(stream, permit.ok()),
                // Most likely out of file descriptors, until a connection closes.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            () = &mut stop => break,
        }
    }
    // Serve what the kernel has accepted already: those callers may have sent a request.
    for _ in 0..MAX_BACKLOG {
        let queued = tokio::time::timeout(Duration::from_millis(1), listener.accept());
        let Ok(Ok(stream)) = queued.await else { break };
        start(stream, None);
    }
    graceful
}
