use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::cache::{Token, TokenCache};
use crate::error::{BoxError, Error};
use crate::message::{AuthRequest, AuthResponse, TokenRejected};

pin_project! {
    /// The response of an [`OfficeRndAuth`](crate::OfficeRndAuth) service.
    ///
    /// The inner future itself, un-boxed, when the token was at hand. `Send`
    /// when the inner service, its future and the request are.
    ///
    /// ```
    /// use officernd_auth::OfficeRndAuth;
    /// use officernd_auth::middleware::ResponseFuture;
    ///
    /// fn call<S, Req>(
    ///     client: &mut OfficeRndAuth<S>,
    ///     request: Req,
    /// ) -> ResponseFuture<S::Future, S, Req>
    /// where
    ///     S: tower::Service<Req, Response = http::Response<()>> + Clone,
    ///     S::Error: Into<tower::BoxError>,
    ///     Req: officernd_auth::middleware::AuthRequest,
    /// {
    ///     use tower::Service;
    ///     client.call(request)
    /// }
    /// ```
    // `F` is `S::Future`. Named, since a bound here, or a projection, makes the
    // compiler prove it anew for every task that holds the future, and fail for
    // errors that are boxed (rust-lang/rust#102211).
    pub struct ResponseFuture<F, S, Req> {
        #[pin]
        state: State<F, PendingCall<S, Req>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, P> {
        Sent { #[pin] inner: F, token: Option<Arc<Token>> },
        // Boxed: rare, and must not make every hit's future large.
        Pending { call: Box<P> },
    }
}

/// A request that has not been sent.
enum PendingCall<S, Req> {
    /// It waits for its token, with the service readied for it.
    Waiting { token: Acquire, held: (S, Req) },
    /// It will not be sent.
    Rejected(Error),
    /// The future has completed.
    Completed,
}

pub(crate) type Acquire = Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + Send>>;

/// Handles a 401 to our token: reports it to the cache, and marks the response.
#[cold]
fn unauthorized<R: AuthResponse>(response: &mut R, token: Arc<Token>) {
    // No new token brings a missing scope (RFC 6750 section 3.1).
    if names_insufficient_scope(response.headers()) {
        return;
    }
    if let Some(cache) = TokenCache::of(&token) {
        cache.reject_generation(token.generation());
    }
    response.extensions_mut().insert(TokenRejected { token });
}

fn names_insufficient_scope(headers: &HeaderMap) -> bool {
    const CODE: &[u8] = b"insufficient_scope";

    let mut challenges = headers.get_all(WWW_AUTHENTICATE).iter();
    challenges.any(|value| {
        value
            .as_bytes()
            .windows(CODE.len())
            .any(|part| part == CODE)
    })
}

impl<F, S, Req> ResponseFuture<F, S, Req> {
    pub(crate) fn sent(inner: F, token: Option<Arc<Token>>) -> Self {
        let state = State::Sent { inner, token };
        Self { state }
    }

    #[cold]
    pub(crate) fn waiting(service: S, request: Req, token: Acquire) -> Self {
        let held = (service, request);
        Self::pending(PendingCall::Waiting { token, held })
    }

    #[cold]
    pub(crate) fn rejected(error: Error) -> Self {
        Self::pending(PendingCall::Rejected(error))
    }

    fn pending(call: PendingCall<S, Req>) -> Self {
        let call = Box::new(call);
        let state = State::Pending { call };
        Self { state }
    }
}

/// The inner future, and the token that went out with its request.
type SendResult<F> = Result<(F, Arc<Token>), BoxError>;

impl<S, Req> PendingCall<S, Req> {
    /// Sends the request once its token is there.
    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<SendResult<S::Future>>
    where
        S: Service<Req>,
        Req: AuthRequest,
    {
        let acquired = match self {
            Self::Waiting { token, .. } => Some(ready!(token.as_mut().poll(cx))),
            _ => None,
        };
        // On failure the readied service is dropped here, with its permit.
        match (mem::replace(self, Self::Completed), acquired) {
            (Self::Waiting { held, .. }, Some(acquired)) => {
                let (mut service, mut request) = held;
                let token = acquired?;
                let value = token.value().clone();
                request.headers_mut().insert(AUTHORIZATION, value);
                Poll::Ready(Ok((service.call(request), token)))
            }
            (Self::Rejected(error), _) => Poll::Ready(Err(error.into())),
            // Polled after completion: the caller's mistake. Stay pending.
            _ => Poll::Pending,
        }
    }
}

impl<F, S, Req, Res, E> Future for ResponseFuture<F, S, Req>
where
    F: Future<Output = Result<Res, E>>,
    S: Service<Req, Future = F>,
    Res: AuthResponse,
    E: Into<BoxError>,
    Req: AuthRequest,
{
    type Output = Result<Res, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { inner, token } => {
                    let mut response = ready!(inner.poll(cx)).map_err(Into::into)?;
                    if response.status() == StatusCode::UNAUTHORIZED {
                        if let Some(token) = token.take() {
                            unauthorized(&mut response, token);
                        }
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Pending { call } => {
                    let (inner, token) = ready!(call.poll_send(cx))?;
                    let token = Some(token);
                    state.set(State::Sent { inner, token });
                }
            }
        }
    }
}

impl<F, S, Req> fmt::Debug for ResponseFuture<F, S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Pending { call } => match **call {
                PendingCall::Waiting { .. } => "waiting for a token",
                PendingCall::Rejected(_) => "refused",
                PendingCall::Completed => "completed",
            },
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish()
    }
}
