//! Replays a request once after a 401 that a new token may cure.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::retry::Policy;

use crate::cache::TokenCache;
use crate::message::{AuthResponse, TokenRejected};

/// A [`tower::retry::Policy`] that replays a request once after a 401 to the
/// layer's token, when the new token is there.
///
/// It goes above the auth layer, so that the replay gets the new token;
/// [`with_retry`](crate::OfficeRndAuthLayer::with_retry) stacks the two. It
/// waits within the cache's `acquire_timeout` for the fetch in flight.
/// If no token comes, the request is repeated with the old one, because tower's
/// [`Policy`] cannot return the first response. If the replacement is scheduled
/// for later (1 to 10 min after repeated 401s), nothing is replayed and the
/// caller gets the 401.
///
/// tower clones each request before it is sent: `http::Request<B>` needs
/// `B: Clone`; a `reqwest::Request` with a streaming body cannot be cloned, and
/// its 401 comes back untouched.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, RetryUnauthorized, StaticToken};
/// use tower::ServiceBuilder;
/// use tower::retry::RetryLayer;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let layer = OfficeRndAuthLayer::new(StaticToken::new("abc")?);
/// let retry = RetryLayer::new(RetryUnauthorized::new());
/// let stack = ServiceBuilder::new().layer(retry).layer(layer);
/// # drop(stack);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct RetryUnauthorized {
    replayed: bool,
}

impl RetryUnauthorized {
    /// A policy that replays after 401s to any layer's tokens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn decide<Res: AuthResponse, E>(&mut self, result: &mut Result<Res, E>) -> Option<RetryFuture> {
        let response = result.as_mut().ok()?;
        let rejected = response.extensions_mut().get::<TokenRejected>()?;
        let generation = rejected.generation();
        let cache = TokenCache::of(&rejected.token)?;
        if self.replayed || !cache.replacement_pending(generation) {
            return None;
        }
        self.replayed = true;
        Some(RetryFuture {
            replacement: Box::pin(async move { cache.replacement(generation).await }),
        })
    }
}

impl<B, Res, E> Policy<http::Request<B>, Res, E> for RetryUnauthorized
where
    B: Clone,
    Res: AuthResponse,
{
    type Future = RetryFuture;

    fn retry(
        &mut self,
        _request: &mut http::Request<B>,
        result: &mut Result<Res, E>,
    ) -> Option<Self::Future> {
        self.decide(result)
    }

    fn clone_request(&mut self, request: &http::Request<B>) -> Option<http::Request<B>> {
        // The replay is not replayed.
        (!self.replayed).then(|| request.clone())
    }
}

#[cfg(feature = "reqwest")]
impl<Res, E> Policy<reqwest::Request, Res, E> for RetryUnauthorized
where
    Res: AuthResponse,
{
    type Future = RetryFuture;

    fn retry(
        &mut self,
        _request: &mut reqwest::Request,
        result: &mut Result<Res, E>,
    ) -> Option<Self::Future> {
        self.decide(result)
    }

    fn clone_request(&mut self, request: &reqwest::Request) -> Option<reqwest::Request> {
        (!self.replayed).then(|| request.try_clone()).flatten()
    }
}

/// The wait of [`RetryUnauthorized`] for the new token.
///
/// ```
/// use officernd_auth::RetryUnauthorized;
/// use officernd_auth::middleware::RetryFuture;
/// use tower::retry::Policy;
///
/// type Request = http::Request<String>;
/// type Response = http::Response<String>;
/// fn policy() -> impl Policy<Request, Response, tower::BoxError, Future = RetryFuture> {
///     RetryUnauthorized::new()
/// }
/// # policy();
/// ```
pub struct RetryFuture {
    replacement: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for RetryFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.replacement.as_mut().poll(cx)
    }
}

impl fmt::Debug for RetryFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture").finish_non_exhaustive()
    }
}
