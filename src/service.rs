use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tower_service::Service;

use crate::cache::{SlotReader, Token, TokenCache};
use crate::clock::Clock;
use crate::error::{BoxError, Error};
use crate::future::{Acquire, ResponseFuture};
use crate::layer::{Policy, Shared};
use crate::message::{AuthRequest, AuthResponse, SkipAuth};
use crate::observability::{RequestOutcome, WaitTimer, count_request};

/// A service that puts the token on each request and calls the inner one.
///
/// Made by [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer). Readiness is the
/// inner service's own: a request waits for a token in its future, never in
/// `poll_ready`, and takes the readied inner service along.
///
/// Keep one service per task and reuse it: from its second request per token on it has a copy of
/// the token of its own, which it finds with one atomic load. A clone for each request shares three
/// reference counts with all threads. A `Buffer` costs far more, and is not needed.
///
/// # Errors
///
/// The inner service's, and this crate's [`Error`] in the same [`BoxError`]
/// ([`Error::find`] distinguishes them): a request that should carry a token and
/// got none is not sent.
///
/// # Cancel safety
///
/// A dropped future gives up its request, not the token fetch that it waited
/// for.
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
#[derive(Clone)]
pub struct OfficeRndAuth<S> {
    inner: S,
    shared: Arc<Shared>,
    reader: SlotReader,
}

/// How the layer treats a request.
enum Action {
    /// Put the token on it.
    Authorize,
    /// Send it as it is.
    PassThrough,
    /// Do not send it.
    Reject(Error),
}

impl<S> OfficeRndAuth<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            reader: SlotReader::default(),
        }
    }

    /// Takes the service that was readied; a clone stays behind.
    #[cold]
    fn take_ready(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }

    fn pass_through<Req>(&mut self, request: Req) -> ResponseFuture<S::Future, S, Req>
    where
        S: Service<Req>,
    {
        count_request(RequestOutcome::Passed);
        ResponseFuture::sent(self.inner.call(request), None)
    }

    #[cold]
    fn reject<F, Req>(&mut self, error: Error) -> ResponseFuture<F, S, Req>
    where
        S: Clone,
    {
        count_request(RequestOutcome::Refused);
        // Gives back what the readied service holds: a permit, a place.
        drop(self.take_ready());
        ResponseFuture::rejected(error)
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
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

    fn call(&mut self, mut request: Req) -> Self::Future {
        let Shared { policy, cache } = &*self.shared;
        match classify(policy, &request) {
            Action::Authorize => {}
            Action::PassThrough => return self.pass_through(request),
            Action::Reject(error) => return self.reject(error),
        }
        let headers = request.headers_mut();
        let token = cache.try_carry(Some(&mut self.reader), |token| {
            headers.insert(AUTHORIZATION, token.value().clone());
            Arc::clone(token)
        });
        if token.is_some() {
            count_request(RequestOutcome::Hit);
            return ResponseFuture::sent(self.inner.call(request), token);
        }
        let token = acquire(cache.clone());
        ResponseFuture::waiting(self.take_ready(), request, token)
    }
}

/// Waits for the token of a request.
#[cold]
fn acquire(cache: TokenCache) -> Acquire {
    Box::pin(async move {
        let acquired = pin!(cache.token_until(cache.deadline()));
        counted(cache.clock(), acquired).await
    })
}

type Acquired = Result<Arc<Token>, Error>;

/// Counts a request that has waited. By reference: an `async fn` keeps a future
/// that it is given twice, and thousands may wait for one token.
async fn counted(
    clock: &dyn Clock,
    acquired: Pin<&mut impl Future<Output = Acquired>>,
) -> Acquired {
    let waiter = WaitTimer::new(|| clock.now());
    let acquired = acquired.await;
    let outcome = match &acquired {
        Ok(_) => RequestOutcome::Waited,
        Err(_) => RequestOutcome::Failed,
    };
    waiter.finish(outcome, || clock.now());
    acquired
}

#[inline(always)]
fn classify<Req: AuthRequest>(policy: &Policy, request: &Req) -> Action {
    let skip = request.extensions().and_then(|all| all.get::<SkipAuth>());
    if skip.is_some() {
        return Action::PassThrough;
    }
    let target = request.target();
    let (scheme, authority) = (target.scheme, target.authority);
    let origin = policy.origins.check(scheme, authority);
    let host = || crate::host::check(request.headers(), authority);
    if let Err(error) = origin.and_then(|()| host()) {
        return match policy.pass_foreign {
            true => Action::PassThrough,
            false => Action::Reject(error),
        };
    }
    if policy.if_not_present && request.headers().contains_key(AUTHORIZATION) {
        return Action::PassThrough;
    }
    Action::Authorize
}

impl<S: fmt::Debug> fmt::Debug for OfficeRndAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfficeRndAuth")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish()
    }
}
