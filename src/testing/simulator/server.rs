//! The sockets: connections, bodies, and the way of one request.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::journal::{Endpoint, RecordedRequest};
use super::reply::{self, Reply, Reset};
use super::state::{Shared, now};
use super::{api, oauth};

const MAX_CONNECTIONS: usize = 4096;
/// For a request's head; what is longer gets hyper's own 431.
const MAX_HEAD: usize = 32 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// Read, and thrown away, so that the client is done sending and sees the 413.
const MAX_DISCARDED: usize = 16 * MAX_BODY;
/// Out of file descriptors, most likely: give others time to close some.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(10);

/// Accepts until it is aborted, and takes its connections with it.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&shared), place));
            }
            Err(_) => tokio::time::sleep(PAUSE_AFTER_FAILED_ACCEPT).await,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, _place: OwnedSemaphorePermit) {
    // Only a matter of speed.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| serve(Arc::clone(&shared), request));
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let ended = (&mut connection).await;
    // Other errors are the client's leaving, or hyper has answered them.
    if ended.is_err_and(|error| error.source().is_some_and(|source| source.is::<Reset>())) {
        reset(&connection.into_parts().io.into_inner());
    }
}

/// Makes the close that follows a reset, instead of an orderly end.
#[allow(
    deprecated,
    reason = "a linger of zero doesn't block, and our oldest tokio lacks `set_zero_linger`"
)]
fn reset(stream: &TcpStream) {
    // Failing that, the connection still closes without an answer.
    let _ = stream.set_linger(Some(Duration::ZERO));
}

async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Reset> {
    let (parts, body) = request.into_parts();
    let visit = Visit::begin(shared, &parts);
    let body = read(body).await?;
    if let (Endpoint::Token, Some(body)) = (visit.endpoint, &body) {
        visit
            .shared
            .state()
            .journal
            .has_body(visit.number, body.clone());
    }
    let scripted = match visit.fault() {
        Some(fault) => fault.play().await?,
        None => None,
    };
    let reply = match (scripted, body) {
        (Some(reply), _) => reply,
        (None, None) => reply::text(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large"),
        (None, Some(body)) => visit.answer(&parts, &body),
    };
    visit.travel().await;
    visit.end(&reply);
    Ok(reply)
}

/// The body, or `None` if it is too large.
async fn read(body: Incoming) -> Result<Option<Bytes>, Reset> {
    match Limited::new(body, MAX_DISCARDED).collect().await {
        Ok(body) => Ok(Some(body.to_bytes()).filter(|body| body.len() <= MAX_BODY)),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        // The client left while it sent.
        Err(_) => Err(Reset),
    }
}

/// One request, from its arrival to its answer or its client's leaving.
struct Visit {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    number: u64,
    /// Over the limit when it arrived, and for how long that lasts.
    over_limit: Option<Duration>,
}

impl Visit {
    /// Counts the request in all books, before anything can go wrong with it.
    fn begin(shared: Arc<Shared>, parts: &request::Parts) -> Self {
        let endpoint = Endpoint::of(parts.uri.path());
        let mut guard = shared.state();
        let state = &mut *guard;
        let now = now();
        let record = RecordedRequest::new(now.duration_since(shared.started), parts);
        let number = state.journal.arrived(endpoint, record);
        let over_limit = match (endpoint, state.settings.rate_limit) {
            (Endpoint::Token, Some((limit, per))) => state.window.charge(now, limit, per),
            _ => None,
        };
        drop(guard);
        if endpoint == Endpoint::Token {
            shared.token_requests.send_modify(|seen| *seen += 1);
        }
        Self {
            shared,
            endpoint,
            number,
            over_limit,
        }
    }

    fn fault(&self) -> Option<super::Fault> {
        match self.endpoint {
            Endpoint::Token => self.shared.token_faults.take(),
            Endpoint::Api => self.shared.api_faults.take(),
            Endpoint::Other => None,
        }
    }

    fn answer(&self, parts: &request::Parts, body: &[u8]) -> Reply {
        let mut state = self.shared.state();
        match (self.endpoint, self.over_limit) {
            (Endpoint::Token, Some(wait)) => {
                oauth::too_many(state.settings.retry_after.then_some(wait))
            }
            (Endpoint::Token, None) => oauth::answer(&mut state, parts, body, now()),
            (Endpoint::Api, _) => api::answer(&state, parts, now()),
            (Endpoint::Other, _) => reply::text(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    /// The way back of a token answer.
    async fn travel(&self) {
        let latency = match self.endpoint {
            Endpoint::Token => self.shared.state().settings.latency,
            _ => Duration::ZERO,
        };
        // Not even a timer, which would tempt a paused clock to jump.
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    fn end(&self, reply: &Reply) {
        let mut state = self.shared.state();
        state
            .journal
            .answered(self.number, self.endpoint, reply.status());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.shared.state().journal.ended(self.endpoint);
    }
}
