//! Replays a request once after a 401.

use tower::retry::Policy;

use crate::cache::TokenCache;
use crate::future::BoxFuture;
use crate::message::{AuthResponse, TokenRejected};

/// A [`tower::retry::Policy`] that replays a request once after a 401 to the layer's token.
///
/// Place it above the auth layer, so that the replay gets the new token;
/// [`with_retry`](crate::OfficeRndAuthLayer::with_retry) stacks the two. The policy waits for the
/// new token for at most the cache's `acquire_timeout`. If none arrives, the request is repeated
/// with the old one, because a tower [`Policy`] cannot return the first response. If the
/// replacement is scheduled for later (1 to 10 min after repeated 401s), the caller gets the 401.
///
/// tower clones each request before it is sent: `http::Request<B>` needs `B: Clone`. A
/// `reqwest::Request` with a streaming body cannot be cloned and is not replayed.
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
    /// Creates the policy. It works above any layer of this crate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn decide<Res: AuthResponse, E>(
        &mut self,
        result: &mut Result<Res, E>,
    ) -> Option<BoxFuture<()>> {
        let response = result.as_mut().ok()?;
        let rejected = response.extensions_mut().get::<TokenRejected>()?;
        let generation = rejected.generation();
        let cache = TokenCache::of(&rejected.token)?;
        if !cache.replacement_pending(generation) {
            return None;
        }
        self.replayed = true;
        Some(Box::pin(async move { cache.replacement(generation).await }))
    }
}

impl<B, Res, E> Policy<http::Request<B>, Res, E> for RetryUnauthorized
where
    B: Clone,
    Res: AuthResponse,
{
    type Future = BoxFuture<()>;

    fn retry(
        &mut self,
        _request: &mut http::Request<B>,
        result: &mut Result<Res, E>,
    ) -> Option<Self::Future> {
        self.decide(result)
    }

    fn clone_request(&mut self, request: &http::Request<B>) -> Option<http::Request<B>> {
        // tower retries only a request that was cloned, so the replay is not retried again.
        (!self.replayed).then(|| request.clone())
    }
}

#[cfg(feature = "reqwest")]
impl<Res, E> Policy<reqwest::Request, Res, E> for RetryUnauthorized
where
    Res: AuthResponse,
{
    type Future = BoxFuture<()>;

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
