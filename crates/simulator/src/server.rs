//! The server: accepts connections, and handles each request.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::reply::{self, Reply};
use crate::state::{Endpoint, Shared, now};
use crate::{api, oauth};

/// The largest body of a request. A larger one gets a 413.
const MAX_BODY: usize = 1024 * 1024;
/// The process is probably out of file descriptors; a pause gives others time to close some.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(10);

/// Accepts connections until it is aborted, which closes them.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            Err(_) => tokio::time::sleep(PAUSE_AFTER_FAILED_ACCEPT).await,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Only affects speed.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| serve(Arc::clone(&shared), request));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = (&mut connection).await;
    // `Fault::Reset`, or the client closed the connection. hyper itself has responded to other errors.
    if ended.is_err_and(|error| {
        error
            .source()
            .is_some_and(|source| source.is::<io::Error>())
    }) {
        reset(&connection.into_parts().io.into_inner());
    }
}

/// Makes the close that follows reset the connection.
#[allow(
    deprecated,
    reason = "a linger of zero doesn't block, and our oldest tokio lacks `set_zero_linger`"
)]
fn reset(stream: &TcpStream) {
    // If it fails, the connection still closes without a response.
    let _ = stream.set_linger(Some(Duration::ZERO));
}

async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Reply> {
    let (parts, body) = request.into_parts();
    let endpoint = Endpoint::of(parts.uri.path());
    let body = read(body).await?;
    let (place, refused) = shared.arrived(endpoint, &parts, body.as_ref());
    let fault = match endpoint {
        Endpoint::Token => shared.token_faults.take(),
        Endpoint::Api => shared.api_faults.take(),
        Endpoint::Other => None,
    };
    let scripted = match fault {
        Some(fault) => fault.play().await?,
        None => None,
    };
    let reply = match (scripted, body) {
        (Some(reply), _) => reply,
        (None, None) => reply::text(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large"),
        (None, Some(body)) => {
            let state = &mut *shared.state();
            match (endpoint, refused) {
                (Endpoint::Token, Some(wait)) => {
                    oauth::too_many(state.settings.retry_after.then_some(wait))
                }
                (Endpoint::Token, None) => oauth::answer(state, &parts, &body, now()),
                (Endpoint::Api, _) => api::answer(state, &parts, now()),
                (Endpoint::Other, _) => reply::text(StatusCode::NOT_FOUND, "Not Found"),
            }
        }
    };
    let latency = shared.state().settings.latency;
    // Without latency there must be no timer: a paused clock would jump to it.
    if endpoint == Endpoint::Token && !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    shared.state().answered(place, endpoint, reply.status());
    Ok(reply)
}

/// Reads the body; `None` if it is too large.
async fn read(body: Incoming) -> io::Result<Option<Bytes>> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        // The client closed the connection before it had sent the body.
        Err(error) => Err(io::Error::other(error)),
    }
}
