//! The service: puts the token on a request and calls the inner service.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tower_service::Service;

use crate::cache::{SlotReader, TokenCache};
use crate::error::{BoxError, Error};
use crate::future::{BoxFuture, Next, ResponseFuture};
use crate::layer::Shared;
use crate::message::{AuthRequest, AuthResponse};
use crate::observability::{WaitTimer, count_hit, count_request};

/// Middleware that sets the `Authorization` header of each request and calls the inner service.
///
/// Created by [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer). `poll_ready` is that of the
/// inner service. A request waits for a token in its future, which holds the inner service that was
/// ready.
///
/// Keep one service per task and reuse it: each request then finds the token without shared reference counts. Cloning the
/// service for each request makes all threads update three shared reference counts. A `Buffer` is
/// not needed and costs far more.
///
/// # Errors
///
/// Returns the inner service's error or this crate's [`Error`](crate::Error), both as [`BoxError`];
/// [`Error::find`](crate::Error::find) distinguishes them. A request that needs a token and gets
/// none is not sent.
///
/// # Cancel safety
///
/// A dropped future gives up its request, not the token fetch that it waited for.
///
/// ```
/// use officernd_auth::{OfficeRndAuth, OfficeRndAuthLayer, StaticToken};
/// use tower::Layer;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// struct AnyClient;
/// let client: OfficeRndAuth<AnyClient> =
///     OfficeRndAuthLayer::new(StaticToken::new("abc")?).layer(AnyClient);
/// let AnyClient = client.into_inner();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OfficeRndAuth<S> {
    inner: S,
    shared: Arc<Shared>,
    reader: SlotReader,
}

impl<S> OfficeRndAuth<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            reader: SlotReader::default(),
        }
    }

    /// Returns the inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, mutably.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service, consuming this one.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req> Service<Req> for OfficeRndAuth<S>
where
    S: Service<Req> + Clone,
    S::Response: AuthResponse,
    S::Error: Into<BoxError>,
    Req: AuthRequest,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let reader = Some(&mut self.reader);
        self.shared.call(&mut self.inner, reader, request)
    }
}

impl Shared {
    /// Sends a request through `inner`, which is ready.
    #[inline(always)]
    pub(crate) fn call<S, Req>(
        &self,
        inner: &mut S,
        reader: Option<&mut SlotReader>,
        mut request: Req,
    ) -> ResponseFuture<S::Future, S, Req>
    where
        S: Service<Req> + Clone,
        Req: AuthRequest,
    {
        match self.policy.check(&request) {
            Ok(true) => {}
            Ok(false) => {
                count_request("passed");
                return ResponseFuture::sent(inner.call(request), None);
            }
            Err(error) => return refuse(inner, error),
        }
        let headers = request.headers_mut();
        let token = self.cache.try_carry(reader, |token| {
            headers.insert(AUTHORIZATION, token.value().clone());
            Arc::clone(token)
        });
        if token.is_some() {
            count_hit();
            return ResponseFuture::sent(inner.call(request), token);
        }
        let token = acquire(self.cache.clone());
        ResponseFuture::waiting(token, take_ready(inner), request)
    }
}

/// Refuses a request. Drops the readied service, which may hold a permit.
#[cold]
pub(crate) fn refuse<F, S: Clone, Req>(inner: &mut S, error: Error) -> ResponseFuture<F, S, Req> {
    count_request("refused");
    drop(take_ready(inner));
    ResponseFuture::refused(error)
}

/// Takes the service that was readied, and leaves a clone behind.
#[cold]
pub(crate) fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    mem::replace(inner, clone)
}

/// Waits for the token of a request.
#[cold]
fn acquire(cache: TokenCache) -> BoxFuture<Result<Next, Error>> {
    Box::pin(async move {
        let timer = WaitTimer::new(cache.clock().now());
        let acquired = cache.token_until(cache.deadline()).await;
        let outcome = if acquired.is_ok() { "waited" } else { "failed" };
        timer.finish(outcome, cache.clock().now());
        acquired.map(Next::Token)
    })
}
