//! The response future of the services.

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
use crate::layer::OfficeRndAuthLayer;
use crate::message::{AuthRequest, AuthResponse, TokenRejected};

pin_project! {
    /// The response future of [`OfficeRndAuth`](crate::OfficeRndAuth) and of
    /// [`OrganizationsAuth`](crate::organizations::OrganizationsAuth).
    ///
    /// Holds the inner future unboxed if the token was available. It is `Send` if the inner
    /// service, its future and the request are. Name it as the future of a service of your own:
    ///
    /// ```
    /// use officernd_auth::OfficeRndAuth;
    /// use officernd_auth::middleware::ResponseFuture;
    ///
    /// type Request = http::Request<String>;
    /// type Future<S> = ResponseFuture<<S as tower::Service<Request>>::Future, S, Request>;
    ///
    /// fn call<S>(client: &mut OfficeRndAuth<S>, request: Request) -> Future<S>
    /// where
    ///     S: tower::Service<Request, Response = http::Response<()>> + Clone,
    ///     S::Error: Into<tower::BoxError>,
    /// {
    ///     tower::Service::call(client, request)
    /// }
    /// ```
    // `F` is `S::Future`. As a projection, or with a bound, tasks that hold the future fail to
    // compile if their errors are boxed (rust-lang/rust#102211).
    pub struct ResponseFuture<F, S, Req> {
        #[pin]
        state: State<F, S, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, S, Req> {
        Sent { #[pin] inner: F, token: Option<Arc<Token>> },
        // Boxed, because this rare case would enlarge the future of every hit.
        Unsent { call: Box<Unsent<S, Req>> },
    }
}

/// A request that waits, or is refused.
struct Unsent<S, Req> {
    /// `None` once it has ended.
    next: Option<BoxFuture<Result<Next, Error>>>,
    /// The request and the service readied for it, unless it is refused.
    held: Option<(S, Req)>,
}

/// What a request waits for.
pub(crate) enum Next {
    Token(Arc<Token>),
    /// The layer of its organization, which sends it.
    Layer(OfficeRndAuthLayer),
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<F, S, Req> ResponseFuture<F, S, Req> {
    pub(crate) fn sent(inner: F, token: Option<Arc<Token>>) -> Self {
        let state = State::Sent { inner, token };
        Self { state }
    }

    #[cold]
    pub(crate) fn waiting(next: BoxFuture<Result<Next, Error>>, service: S, request: Req) -> Self {
        Self::unsent(next, Some((service, request)))
    }

    #[cold]
    pub(crate) fn refused(error: Error) -> Self {
        Self::unsent(Box::pin(ready(Err(error))), None)
    }

    fn unsent(next: BoxFuture<Result<Next, Error>>, held: Option<(S, Req)>) -> Self {
        let next = Some(next);
        let call = Box::new(Unsent { next, held });
        let state = State::Unsent { call };
        Self { state }
    }
}

type Sent<S, Req> = State<<S as Service<Req>>::Future, S, Req>;

impl<S, Req> Unsent<S, Req> {
    /// Sends the request once its token or its layer is available.
    #[cold]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sent<S, Req>, Error>>
    where
        S: Service<Req> + Clone,
        Req: AuthRequest,
    {
        let Some(next) = &mut self.next else {
            // The caller polls after completion.
            return Poll::Pending;
        };
        let next = task::ready!(next.as_mut().poll(cx));
        self.next = None;
        // On failure the readied service is dropped here, with its permit.
        let held = self.held.take();
        let next = next?;
        let Some((mut service, mut request)) = held else {
            return Poll::Pending;
        };
        Poll::Ready(Ok(match next {
            Next::Token(token) => {
                let value = token.value().clone();
                request.headers_mut().insert(AUTHORIZATION, value);
                State::Sent {
                    inner: service.call(request),
                    token: Some(token),
                }
            }
            Next::Layer(layer) => layer.call(&mut service, request).state,
        }))
    }
}

impl<F, S, Req, Res, E> Future for ResponseFuture<F, S, Req>
where
    F: Future<Output = Result<Res, E>>,
    S: Service<Req, Future = F> + Clone,
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
    // A new token does not add a missing scope (RFC 6750 section 3.1).
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
            State::Unsent { call } => match (&call.next, &call.held) {
                (Some(_), Some(_)) => "waiting",
                (Some(_), None) => "refused",
                (None, _) => "completed",
            },
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish()
    }
}
