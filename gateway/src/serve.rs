//! Connections: taken in, bounded, and seen to their end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use officernd_auth::BoxError;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::App;
use super::options::Options;
use super::write_timeout::WriteTimeout;

/// So long after SIGTERM answers say `Connection: close`, and clients that come
/// back on an open connection are served: a connection that is closed under a
/// request on its way would lose it.
const FAREWELL: Duration = Duration::from_millis(500);

/// A request's head: lines, and bytes.
const HEAD_LINES: usize = 100;
const HEAD_BYTES: usize = 32 * 1024;

/// More than a kernel keeps waiting.
const BACKLOG: usize = 8192;

/// SIGTERM, or ctrl-c.
pub(crate) async fn told_to_leave() -> Result<(), BoxError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Serves until it is to leave, then what is in flight. Whether all of that was
/// served to its end.
pub(crate) async fn serve(
    options: &Options,
    listener: TcpListener,
    router: Router,
    app: &App,
    end: watch::Sender<bool>,
    leave: impl Future<Output = Result<(), BoxError>>,
) -> Result<bool, BoxError> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(options.head_seconds.into()))
        .max_headers(HEAD_LINES)
        .max_buf_size(HEAD_BYTES);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(options.connections));
    let patience = Duration::from_secs(options.body_seconds.into());
    let greet = |stream: TcpStream, place| {
        // Small answers go out at once; if that fails, a little later.
        let _ = stream.set_nodelay(true);
        let stream = WriteTimeout::new(stream, patience);
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that leaves is no event.
            let _ = connection.await;
            drop(place);
        });
    };

    let mut leave = pin!(leave);
    let left = loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => greet(stream, place.ok()),
                // Out of file descriptors, most likely: some will come free.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            left = &mut leave => break left,
        }
    };

    // Those that the kernel has accepted already are served; the next are
    // refused, before clients are told to go, and come back.
    let listener = listener.into_std()?;
    for stream in listener.incoming().take(BACKLOG).map_while(Result::ok) {
        let sound = stream.set_nonblocking(true);
        if let Ok(stream) = sound.and_then(|()| TcpStream::from_std(stream)) {
            greet(stream, None);
        }
    }
    drop(listener);
    tracing::info!(connections = graceful.count(), "leaving");
    app.leaving.store(true, Ordering::Relaxed);
    tokio::time::sleep(FAREWELL).await;
    let _ = end.send(true);
    tracing::info!(connections = graceful.count(), "leaving: the last answers");
    let grace = Duration::from_secs(options.grace_seconds.into());
    let drained = tokio::time::timeout(grace, graceful.shutdown()).await;
    left?;
    Ok(drained.is_ok())
}
