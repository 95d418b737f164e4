use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tower_service::Service;

use super::future::ResponseFuture;
use super::{AuthRequest, AuthResponse, Policy, Shared, SkipAuth, Source};
use crate::cache::{SlotReader, TokenHeader, TokenId};
use crate::error::{BoxError, Error};
use crate::observability::{RequestOutcome, count_request};

/// A service that puts the token on each request and calls the inner one.
///
/// Made by [`OfficeRndAuthLayer`](super::OfficeRndAuthLayer). Readiness is the
/// inner service's own: a request waits for a token in its future, never in
/// `poll_ready`, and takes the readied inner service along.
///
/// # Errors
///
/// The inner service's, and this crate's [`Error`] in the same [`BoxError`]
/// ([`Error::find`] tells them apart): a request that should carry a token and
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

/// What the layer does with a request.
enum Action {
    /// Put the token on it.
    Authorize,
    /// Send it as it is.
    PassThrough,
    /// Do not send it.
    Reject(Error),
}

impl<S> OfficeRndAuth<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
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
        match classify(&self.shared.policy, &request) {
            Action::Authorize => {}
            Action::PassThrough => {
                count_request(RequestOutcome::Passed);
                return ResponseFuture::sent(self.inner.call(request), None);
            }
            Action::Reject(error) => return self.reject(error),
        }
        match self.try_header(&mut request) {
            Ok(Some(token)) => {
                count_request(RequestOutcome::Hit);
                ResponseFuture::sent(self.inner.call(request), Some(token))
            }
            Ok(None) => {
                let token = self.shared.source.acquire(request.target().path);
                ResponseFuture::waiting(self.take_ready(), request, token)
            }
            Err(error) => self.reject(error),
        }
    }
}

impl<S> OfficeRndAuth<S> {
    /// Puts the token on the request if there is one that it may carry now.
    #[inline(always)]
    fn try_header<Req: AuthRequest>(
        &mut self,
        request: &mut Req,
    ) -> Result<Option<Arc<TokenId>>, Error> {
        match &self.shared.source {
            Source::Single(cache) => Ok(cache.try_header(&mut self.reader, |header| {
                insert_authorization(request, header)
            })),
            Source::PerOrganization(organizations) => {
                let caches = organizations.pin();
                let slug = organizations.slug_of(request.target().path)?;
                let cache = caches.get(slug);
                Ok(cache.and_then(|cache| {
                    cache.try_header_once(|header| insert_authorization(request, header))
                }))
            }
        }
    }
}

#[inline(always)]
fn insert_authorization<Req: AuthRequest>(request: &mut Req, header: &TokenHeader) -> Arc<TokenId> {
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, header.value.clone());
    Arc::clone(&header.id)
}

#[inline(always)]
fn classify<Req: AuthRequest>(policy: &Policy, request: &Req) -> Action {
    let target = request.target();
    let skip = target.extensions.and_then(|all| all.get::<SkipAuth>());
    if skip.is_some() {
        return Action::PassThrough;
    }
    if let Err(error) = policy.origins.check(target.scheme, target.authority) {
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
