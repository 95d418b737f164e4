//! The response of the service.

use std::fmt;
use std::future::Future;
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
    /// Holds the inner future itself, unboxed, if the token was available. `Send` when the inner
    /// service, its future and the request are.
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
        state: State<F, S, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, S, Req> {
        Sent { #[pin] inner: F, token: Option<Arc<Token>> },
        // Boxed: rare, and must not make every hit's future large.
        Waiting { call: Box<Waiting<S, Req>> },
        // Without its error once that has been returned.
        Refused { error: Option<Error> },
    }
}

/// A request that waits for its token, with the service readied for it.
struct Waiting<S, Req> {
    token: Acquire,
    service: S,
    request: Option<Req>,
}

pub(crate) type Acquire = Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + Send>>;

impl<F, S, Req> ResponseFuture<F, S, Req> {
    pub(crate) fn sent(inner: F, token: Option<Arc<Token>>) -> Self {
        let state = State::Sent { inner, token };
        Self { state }
    }

    #[cold]
    pub(crate) fn waiting(token: Acquire, service: S, request: Req) -> Self {
        let call = Box::new(Waiting {
            token,
            service,
            request: Some(request),
        });
        let state = State::Waiting { call };
        Self { state }
    }

    #[cold]
    pub(crate) fn refused(error: Error) -> Self {
        let state = State::Refused { error: Some(error) };
        Self { state }
    }
}

impl<S, Req> Waiting<S, Req> {
    /// Sends the request once its token is there.
    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<State<S::Future, S, Req>>
    where
        S: Service<Req>,
        Req: AuthRequest,
    {
        let acquired = ready!(self.token.as_mut().poll(cx));
        Poll::Ready(match (acquired, self.request.take()) {
            (Ok(token), Some(mut request)) => {
                let value = token.value().clone();
                request.headers_mut().insert(AUTHORIZATION, value);
                let inner = self.service.call(request);
                let token = Some(token);
                State::Sent { inner, token }
            }
            (acquired, _) => {
                let error = acquired.err();
                State::Refused { error }
            }
        })
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
            let next = match state.as_mut().project() {
                StateProj::Sent { inner, token } => {
                    let mut response = ready!(inner.poll(cx)).map_err(Into::into)?;
                    if response.status() == StatusCode::UNAUTHORIZED {
                        if let Some(token) = token.take() {
                            unauthorized(&mut response, token);
                        }
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Waiting { call } => ready!(call.poll_send(cx)),
                StateProj::Refused { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(error.into())),
                    // Polled after completion: the caller's mistake. Stay pending.
                    None => return Poll::Pending,
                },
            };
            // Drops the service of a request that waited, with its permit.
            state.set(next);
        }
    }
}

/// Handles a 401 to our token: reports it to the cache, and marks the response.
#[cold]
fn unauthorized<R: AuthResponse>(response: &mut R, token: Arc<Token>) {
    // A new token does not bring a missing scope (RFC 6750 section 3.1).
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
        let mut parts = value.as_bytes().windows(CODE.len());
        parts.any(|part| part == CODE)
    })
}

impl<F, S, Req> fmt::Debug for ResponseFuture<F, S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Waiting { .. } => "waiting for a token",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish()
    }
}
