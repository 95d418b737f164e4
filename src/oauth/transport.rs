//! One request and its bounded answer, over whatever HTTP client.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;
use zeroize::Zeroizing;

use crate::error::{BoxError, Error, ErrorKind};

/// No token answer is larger.
const LARGEST_ANSWER: usize = 64 * 1024;

pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) type AnswerFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Answered, Error>> + Send + 'a>>;

/// An HTTP client without its type.
pub(super) trait Exchange: Send + Sync {
    fn post(&self, request: Request<Bytes>) -> AnswerFuture<'_>;
}

/// Any tower HTTP service.
pub(super) struct Via<S>(pub(super) S);

impl<S, B> Exchange for Via<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn post(&self, request: Request<Bytes>) -> AnswerFuture<'_> {
        // The clone that is readied is the one that is called.
        let mut service = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(|error| failed(error.into()))?;
            let response = service.call(request.map(Full::new)).await;
            read(response.map_err(|error| failed(error.into()))?).await
        })
    }
}

/// Reads the answer, to the cap.
pub(super) async fn read<B>(response: Response<B>) -> Result<Answered, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    // A body is not waited for that is not looked at.
    let says_all = matches!(head.status.as_u16(), 300..=399 | 408 | 429 | 500..);
    if says_all {
        return Ok(Answered {
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
        });
    }
    let body = match Limited::new(body, LARGEST_ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        // A failure's status says enough.
        Err(_) if head.status != StatusCode::OK => Bytes::new(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Error::new(
                ErrorKind::Malformed,
                "the token answer is over 64 KiB; is the token URL right?",
            ));
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(Answered {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// The client could not bring a whole answer.
fn failed(error: BoxError) -> Error {
    // A layer of this crate below, or a client that told the kinds apart.
    match Error::find(&error) {
        Some(ours) => ours.clone(),
        None => Error::new(ErrorKind::Transport, "the token request failed").with_source(error),
    }
}

/// The error, or a bare one of its kind if a log of it would show one of these.
/// A client's errors are its own affair, but some quote the whole request.
pub(super) fn without(error: Error, secrets: &[Zeroizing<String>]) -> Error {
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    // A chain that loops is not ours to follow for ever.
    for _ in 0..64 {
        let Some(shown) = next else {
            return error;
        };
        let text = Zeroizing::new(format!("{shown}\n{shown:?}"));
        if secrets.iter().any(|secret| text.contains(&**secret)) {
            break;
        }
        next = shown.source();
    }
    let bare = Error::new(
        error.kind(),
        "the token request failed; the client's error quotes the secret and is left out",
    );
    match error.retry_after() {
        Some(after) => bare.with_retry_after(after),
        None => bare,
    }
}
