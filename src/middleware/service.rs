use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, Entry};
use http::{HeaderMap, HeaderValue};
use tower_service::Service;

use super::future::ResponseFuture;
use super::{Auth, AuthRequest, AuthResponse, Policy, TokenSource};
use crate::cache::{Lent, TokenCache};
use crate::error::{BoxError, Error};
use crate::observability::{Requested, requested};

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
pub struct OfficeRndAuth<S, C: TokenSource = TokenCache> {
    inner: S,
    auth: Arc<Auth<C>>,
    reader: C::Reader,
}

/// What becomes of a request.
enum Verdict {
    /// It gets the token.
    Ours,
    /// It goes out as it is.
    Pass,
    /// It does not go out.
    Refuse(Error),
}

impl<S> OfficeRndAuth<S> {
    /// The cache behind this service.
    #[must_use]
    pub fn cache(&self) -> &TokenCache {
        &self.auth.source
    }
}

impl<S, C: TokenSource> OfficeRndAuth<S, C> {
    pub(super) fn new(inner: S, auth: Arc<Auth<C>>) -> Self {
        Self {
            inner,
            auth,
            reader: C::Reader::default(),
        }
    }

    /// The service that was readied; a clone stays behind.
    #[cold]
    fn take_ready(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }

    #[cold]
    fn refuse<F, Req>(&mut self, error: Error) -> ResponseFuture<F, S, Req>
    where
        S: Clone,
    {
        requested(Requested::Refused);
        // Gives back what the readied service holds: a permit, a place.
        drop(self.take_ready());
        ResponseFuture::refused(error)
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

impl<S: Clone, C: TokenSource> Clone for OfficeRndAuth<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            auth: Arc::clone(&self.auth),
            reader: self.reader.clone(),
        }
    }
}

impl<S, Req, C> Service<Req> for OfficeRndAuth<S, C>
where
    C: TokenSource,
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
        match judge(&self.auth.policy, &request) {
            Verdict::Ours => {}
            Verdict::Pass => {
                requested(Requested::Passed);
                return ResponseFuture::sent(self.inner.call(request), None);
            }
            Verdict::Refuse(error) => return self.refuse(error),
        }
        let source = &self.auth.source;
        match source.lend(request.path(), &mut self.reader) {
            Ok(Some(Lent { value, ticket })) => {
                put(request.headers(), value);
                requested(Requested::Hit);
                ResponseFuture::sent(self.inner.call(request), Some(ticket))
            }
            Ok(None) => {
                let token = source.acquire(request.path());
                ResponseFuture::waiting(self.take_ready(), request, token)
            }
            Err(error) => self.refuse(error),
        }
    }
}

/// `insert`, at a quarter less: an entry looks the name up once.
#[inline]
fn put(headers: &mut HeaderMap, value: HeaderValue) {
    match headers.entry(AUTHORIZATION) {
        Entry::Vacant(place) => {
            place.insert(value);
        }
        Entry::Occupied(mut place) => {
            place.insert(value);
        }
    }
}

#[inline(always)]
fn judge<Req: AuthRequest>(policy: &Policy, request: &Req) -> Verdict {
    if request.skips() {
        return Verdict::Pass;
    }
    let (scheme, authority) = request.target();
    if let Err(error) = policy.origins.allows(scheme, authority) {
        return match policy.pass_foreign {
            true => Verdict::Pass,
            false => Verdict::Refuse(error),
        };
    }
    if policy.if_not_present && request.has_authorization() {
        return Verdict::Pass;
    }
    Verdict::Ours
}

impl<S: fmt::Debug, C: TokenSource> fmt::Debug for OfficeRndAuth<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfficeRndAuth")
            .field("inner", &self.inner)
            .field("auth", &self.auth)
            .finish()
    }
}
