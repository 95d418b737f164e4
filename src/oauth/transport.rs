//! One request and its bounded answer, over any HTTP client.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use crate::clock::{Clock, timeout_at};
use crate::error::{BoxError, Error, ErrorKind};

/// No token answer is larger.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

pub(super) struct TokenResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<TokenResponse, Error>> + Send + 'a>>;

/// An HTTP client without its type.
pub(super) trait Transport: Send + Sync {
    /// Sends the request, if the client is ready for it in time.
    fn post<'a>(&'a self, request: Request<Bytes>, ready_by: ReadyBy<'a>) -> ResponseFuture<'a>;
}

/// When a client must be ready. A client that waits for itself, behind a limit
/// that it shares, would use up the whole fetch timeout and not show why.
pub(super) struct ReadyBy<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) at: Instant,
}

/// Any tower HTTP service.
pub(super) struct ServiceTransport<S>(pub(super) S);

impl<S, B> Transport for ServiceTransport<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn post<'a>(&'a self, request: Request<Bytes>, ready_by: ReadyBy<'a>) -> ResponseFuture<'a> {
        // The clone that is readied is the one that is called.
        let mut service = self.0.clone();
        Box::pin(async move {
            let ready = poll_fn(|cx| service.poll_ready(cx).map_err(|error| failed(error.into())));
            let ready = timeout_at(ready_by.clock, ready_by.at, ready).await;
            // Nothing is sent before `call`.
            ready
                .unwrap_or_else(|| Err(not_ready()))
                .map_err(|error| error.mark_unsent(true))?;
            let response = service.call(request.map(Full::new)).await;
            read(response.map_err(|error| failed(error.into()))?).await
        })
    }
}

/// Reads the answer, to the cap.
pub(super) async fn read<B>(response: Response<B>) -> Result<TokenResponse, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    // Skip the body where the status alone decides.
    let skipped = matches!(head.status.as_u16(), 300..=399 | 408 | 429 | 500..);
    let body = if skipped {
        Bytes::new()
    } else {
        match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            // The status of a failure is enough.
            Err(_) if head.status != StatusCode::OK => Bytes::new(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Error::new(
                    ErrorKind::Malformed,
                    "the token answer is over 64 KiB; is the token URL right?",
                ));
            }
            Err(error) => return Err(failed(error)),
        }
    };
    Ok(TokenResponse {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// The client could not bring a whole answer.
fn failed(error: BoxError) -> Error {
    // From a layer of this crate below, or a client that distinguished the kinds.
    if let Some(ours) = Error::find(&error) {
        return ours.clone();
    }
    let never_connected = never_connected(&*error);
    let failed = Error::new(ErrorKind::Transport, "the token request failed");
    failed.with_source(error).mark_unsent(never_connected)
}

/// Whether one of its causes says that there was no connection. A time-out does not: it may be
/// that of an answer.
fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    // A chain of sources may be a circle.
    for _ in 0..64 {
        let Some(error) = next else { return false };
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable,
        ) = kind
        {
            return true;
        }
        // hyper-util's client, for a name that is unknown or a TLS handshake that fails. The text is
        // what its `is_connect` says, without a dependency on its version.
        if error.to_string() == "client error (Connect)" {
            return true;
        }
        next = error.source();
    }
    false
}

fn not_ready() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the token endpoint's client did not become ready (poll_ready) in time; \
         it must not share a limit with the layer's requests",
    )
}
