//! Connections: accepted, bounded, and served to their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::listen::{self, Listener, Stream};

/// A request's head: lines, and bytes.
const MAX_HEAD_LINES: usize = 100;
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How long to wait before accepting again after a failure.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; more wait to be accepted.
    pub(crate) connections: usize,
    pub(crate) head_timeout: Duration,
    /// For a caller that does not read.
    pub(crate) write_timeout: Duration,
}

/// Listens for SIGTERM, SIGINT and SIGHUP from here on; completes on the first.
pub(crate) fn signaled() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A server that has stopped accepting.
pub(crate) struct Closed {
    connections: GracefulShutdown,
}

/// Accepts and serves connections until `stop` completes.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Closed {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(MAX_HEAD_LINES)
        .max_buf_size(MAX_HEAD_BYTES);
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let start = |stream: Stream, place| {
        listen::prepare(&stream, limits.write_timeout);
        // tower-http's body timeouts run only while hyper wants more of a body,
        // which it does not while a caller doesn't read.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_timeout));
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A client that leaves is no event.
            let _ = connection.await;
            drop(place);
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
    for stream in listener.close() {
        start(stream, None);
    }
    Closed { connections }
}

impl Closed {
    pub(crate) fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Serves the requests in flight to their end, for at most `timeout`.
    /// Returns whether all of them ended.
    pub(crate) async fn drain(self, timeout: Duration) -> bool {
        let drained = tokio::time::timeout(timeout, self.connections.shutdown());
        drained.await.is_ok()
    }
}
