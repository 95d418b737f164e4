use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http::header::AUTHORIZATION;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::challenge;
use super::message::private::{Answer, Outgoing};
use super::source::Acquire;
use super::{AuthRequest, AuthResponse, TokenRejected};
use crate::cache::{Ticket, TokenCache};
use crate::error::{BoxError, Error};

pin_project! {
    /// The response of an [`OfficeRndAuth`](super::OfficeRndAuth) service.
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
        state: State<F, Unsent<S, Req>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, U> {
        Sent { #[pin] inner: F, token: Option<Ticket> },
        // Boxed: rare, and must not make every hit's future large.
        Unsent { unsent: Box<U> },
    }
}

/// A request that has not gone out.
enum Unsent<S, Req> {
    /// It waits for its token, with the service readied for it.
    Waiting { token: Acquire, held: (S, Req) },
    /// It never will.
    Refused(Error),
    /// It is told so, or polled on after that.
    Over,
}

/// A 401 to our own token: heal the cache, and say so on the response.
#[cold]
fn unauthorized<R: AuthResponse>(response: &mut R, token: Ticket) {
    // No new token cures a missing scope (RFC 6750 §3.1).
    if challenge::insufficient_scope(Answer::headers(response)) {
        return;
    }
    TokenCache::reject_ticket(token);
    let rejected = TokenRejected { token };
    Answer::extensions(response).insert(rejected);
}

impl<F, S, Req> ResponseFuture<F, S, Req> {
    pub(super) fn sent(inner: F, token: Option<Ticket>) -> Self {
        let state = State::Sent { inner, token };
        Self { state }
    }

    #[cold]
    pub(super) fn waiting(service: S, request: Req, token: Acquire) -> Self {
        let held = (service, request);
        Self::unsent(Unsent::Waiting { token, held })
    }

    #[cold]
    pub(super) fn refused(error: Error) -> Self {
        Self::unsent(Unsent::Refused(error))
    }

    fn unsent(unsent: Unsent<S, Req>) -> Self {
        let unsent = Box::new(unsent);
        let state = State::Unsent { unsent };
        Self { state }
    }
}

impl<S, Req> Unsent<S, Req> {
    /// Sends the request once its token is there.
    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(S::Future, Ticket), BoxError>>
    where
        S: Service<Req>,
        Req: AuthRequest,
    {
        let acquired = match self {
            Self::Waiting { token, .. } => Some(ready!(token.as_mut().poll(cx))),
            _ => None,
        };
        // What the readied service holds is given back at once if it fails.
        match (mem::replace(self, Self::Over), acquired) {
            (Self::Waiting { held, .. }, Some(acquired)) => {
                let (mut service, mut request) = held;
                let (token, ticket) = acquired?;
                let value = token.header_value().clone();
                Outgoing::headers(&mut request).insert(AUTHORIZATION, value);
                Poll::Ready(Ok((service.call(request), ticket)))
            }
            (Self::Refused(error), _) => Poll::Ready(Err(error.into())),
            // Polled after it ended is the caller's fault; it waits.
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
                    if Answer::status(&response) == StatusCode::UNAUTHORIZED {
                        if let Some(token) = token.take() {
                            unauthorized(&mut response, token);
                        }
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Unsent { unsent } => {
                    let (inner, ticket) = ready!(unsent.poll_send(cx))?;
                    let token = Some(ticket);
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
            State::Unsent { unsent } => match **unsent {
                Unsent::Waiting { .. } => "waiting for a token",
                Unsent::Refused(_) | Unsent::Over => "refused",
            },
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish()
    }
}
