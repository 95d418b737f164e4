use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http::header::AUTHORIZATION;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::challenge;
use super::message::private::{Answer, Outgoing};
use super::{Auth, AuthRequest, AuthResponse, TokenRejected};
use crate::cache::{Ticket, TokenCache};
use crate::error::{BoxError, Error};
use crate::token::AccessToken;
use crate::trace::{Requested, Waiter};

pin_project! {
    /// The response of an [`OfficeRndAuth`](super::OfficeRndAuth) service.
    ///
    /// The inner future itself, un-boxed, when the token was at hand. `Send`
    /// when the inner service, its future and the request are.
    ///
    /// ```
    /// use officernd_auth::{OfficeRndAuth, ResponseFuture};
    ///
    /// fn call<S, Req>(client: &mut OfficeRndAuth<S>, request: Req) -> ResponseFuture<S, Req>
    /// where
    ///     S: tower::Service<Req, Response = http::Response<()>> + Clone,
    ///     S::Error: Into<tower::BoxError>,
    ///     Req: officernd_auth::AuthRequest,
    /// {
    ///     use tower::Service;
    ///     client.call(request)
    /// }
    /// ```
    pub struct ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future, Waiting<S, Req>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, W> {
        Sent { #[pin] inner: F, token: Option<Ticket> },
        // Boxed: a miss is rare, and must not make every hit's future large.
        Waiting { waiting: Box<W> },
        Refused { error: Option<Error> },
    }
}

/// A request that waits for its token, with the service readied for it.
struct Waiting<S, Req> {
    token: Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>,
    /// Taken when the token is there.
    held: Option<(S, Req)>,
    auth: Arc<Auth>,
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

impl<S, Req> ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    pub(super) fn sent(inner: S::Future, token: Option<Ticket>) -> Self {
        let state = State::Sent { inner, token };
        Self { state }
    }

    #[cold]
    pub(super) fn waiting(service: S, request: Req, auth: Arc<Auth>) -> Self {
        let cache = auth.cache.clone();
        let waiting = Box::new(Waiting {
            token: Box::pin(async move {
                let waiter = Waiter::new(|| cache.now());
                let token = cache.token().await;
                let became = match &token {
                    Ok(_) => Requested::Waited,
                    Err(_) => Requested::Failed,
                };
                waiter.over(became, || cache.now());
                token
            }),
            held: Some((service, request)),
            auth,
        });
        let state = State::Waiting { waiting };
        Self { state }
    }

    #[cold]
    pub(super) fn refused(error: Error) -> Self {
        let state = State::Refused { error: Some(error) };
        Self { state }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Response: AuthResponse,
    S::Error: Into<BoxError>,
    Req: AuthRequest,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Sent { inner, token } => {
                    let mut response = ready!(inner.poll(cx)).map_err(Into::into)?;
                    if Answer::status(&response) == StatusCode::UNAUTHORIZED {
                        if let Some(token) = token.take() {
                            unauthorized(&mut response, token);
                        }
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Waiting { waiting } => {
                    let token = match ready!(waiting.token.as_mut().poll(cx)) {
                        Ok(token) => token,
                        Err(error) => {
                            // Gives back at once what the readied service holds.
                            state.set(State::Refused { error: None });
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    // Polled after it ended is the caller's fault; it waits.
                    let Some((mut service, mut request)) = waiting.held.take() else {
                        return Poll::Pending;
                    };
                    let value = token.header_value().clone();
                    Outgoing::headers(&mut request).insert(AUTHORIZATION, value);
                    State::Sent {
                        inner: service.call(request),
                        token: Some(waiting.auth.cache.ticket(&token)),
                    }
                }
                StateProj::Refused { error } => {
                    return match error.take() {
                        Some(error) => Poll::Ready(Err(error.into())),
                        None => Poll::Pending,
                    };
                }
            };
            state.set(next);
        }
    }
}

impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
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
