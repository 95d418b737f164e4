//! The response of the service.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Context, Poll};

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
        Unsent { call: Box<Unsent<S, Req>> },
    }
}

/// A request that waits for its token, or is refused.
struct Unsent<S, Req> {
    /// `None` once it has ended.
    token: Option<Acquire>,
    /// The request and the service readied for it, unless it is refused.
    held: Option<(S, Req)>,
}

pub(crate) type Acquire = Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + Send>>;

impl<F, S, Req> ResponseFuture<F, S, Req> {
    pub(crate) fn sent(inner: F, token: Option<Arc<Token>>) -> Self {
        let state = State::Sent { inner, token };
        Self { state }
    }

    #[cold]
    pub(crate) fn waiting(token: Acquire, service: S, request: Req) -> Self {
        Self::unsent(token, Some((service, request)))
    }

    #[cold]
    pub(crate) fn refused(error: Error) -> Self {
        Self::unsent(Box::pin(ready(Err(error))), None)
    }

    fn unsent(token: Acquire, held: Option<(S, Req)>) -> Self {
        let token = Some(token);
        let call = Box::new(Unsent { token, held });
        let state = State::Unsent { call };
        Self { state }
    }
}

type Sent<S, Req> = State<<S as Service<Req>>::Future, S, Req>;

impl<S, Req> Unsent<S, Req> {
    /// Sends the request once its token is there.
    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sent<S, Req>, Error>>
    where
        S: Service<Req>,
        Req: AuthRequest,
    {
        let Some(token) = &mut self.token else {
            // Polled after completion: the caller's mistake. Stay pending.
            return Poll::Pending;
        };
        let acquired = task::ready!(token.as_mut().poll(cx));
        self.token = None;
        // On failure the readied service is dropped here, with its permit.
        let held = self.held.take();
        let token = acquired?;
        let Some((mut service, mut request)) = held else {
            return Poll::Pending;
        };
        let value = token.value().clone();
        request.headers_mut().insert(AUTHORIZATION, value);
        Poll::Ready(Ok(State::Sent {
            inner: service.call(request),
            token: Some(token),
        }))
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

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { inner, token } => {
                    let mut response = task::ready!(inner.poll(cx)).map_err(Into::into)?;
                    if response.status() == StatusCode::UNAUTHORIZED {
                        if let Some(token) = token.take() {
                            unauthorized(&mut response, token);
                        }
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Unsent { call } => {
                    let sent = task::ready!(call.poll_send(cx))?;
                    state.set(sent);
                }
            }
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
            State::Unsent { call } => match (&call.token, &call.held) {
                (Some(_), Some(_)) => "waiting for a token",
                (Some(_), None) => "refused",
                (None, _) => "completed",
            },
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish()
    }
}
