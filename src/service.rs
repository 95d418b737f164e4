//! The service: puts the token on a request and calls the inner service.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tower_service::Service;

use crate::cache::{SlotReader, TokenCache};
use crate::error::BoxError;
use crate::future::{Acquire, ResponseFuture};
use crate::layer::Shared;
use crate::message::{AuthRequest, AuthResponse};
use crate::observability::{RequestOutcome, WaitTimer, count_request};

/// A service that puts the token on each request and calls the inner one.
///
/// Made by [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer). Readiness is the inner service's own:
/// a request waits for a token in its future, never in `poll_ready`, and takes the readied inner
/// service along.
///
/// Keep one service per task and reuse it: from its second request per token on it has a copy of
/// the token of its own, which it finds with one atomic load. A clone for each request shares three
/// reference counts with all threads. A `Buffer` costs far more, and is not needed.
///
/// # Errors
///
/// Returns the inner service's error or this crate's [`Error`](crate::Error), both as [`BoxError`];
/// [`Error::find`](crate::Error::find) distinguishes them. A request that should carry a token and
/// got none is not sent.
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

    /// Returns the inner service.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Gives the inner service back.
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
                count_request(RequestOutcome::Passed);
                return ResponseFuture::sent(inner.call(request), None);
            }
            Err(error) => {
                count_request(RequestOutcome::Refused);
                // Gives back what the readied service holds: a permit, a place.
                drop(take_ready(inner));
                return ResponseFuture::refused(error);
            }
        }
        let headers = request.headers_mut();
        let token = self.cache.try_carry(reader, |token| {
            headers.insert(AUTHORIZATION, token.value().clone());
            Arc::clone(token)
        });
        if token.is_some() {
            count_request(RequestOutcome::Hit);
            return ResponseFuture::sent(inner.call(request), token);
        }
        let token = acquire(self.cache.clone());
        ResponseFuture::waiting(token, take_ready(inner), request)
    }
}

/// Takes the service that was readied; a clone stays behind.
#[cold]
fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    mem::replace(inner, clone)
}

/// Waits for the token of a request.
#[cold]
fn acquire(cache: TokenCache) -> Acquire {
    Box::pin(async move {
        let waiter = WaitTimer::new(|| cache.clock().now());
        let acquired = cache.token_until(cache.deadline()).await;
        let outcome = match &acquired {
            Ok(_) => RequestOutcome::Waited,
            Err(_) => RequestOutcome::Failed,
        };
        waiter.finish(outcome, || cache.clock().now());
        acquired
    })
}
