use std::fmt;
use std::sync::Arc;

use tower::retry::RetryLayer;
use tower_layer::{Layer, Stack};

use super::{Auth, OfficeRndAuth, Organizations, Policy, RetryUnauthorized, TokenSource};
use crate::cache::TokenCache;

/// Puts a live bearer token on every request.
///
/// Clones, and the services that it makes, share one [`TokenCache`].
///
/// # Where it goes in a stack
///
/// Below everything that sends a request again (retry, redirect), so that each
/// try carries the token of its moment; above what only moves bytes. A timeout
/// above it also covers the wait for a token; below, only the request.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use tower::ServiceBuilder;
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Empty;
/// # use tower::{Service, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// # let http_client = service_fn(|request: Request<Empty<Bytes>>| async move {
/// #     assert_eq!(request.headers()["authorization"], "Bearer abc");
/// #     Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
/// # });
/// let layer = OfficeRndAuthLayer::new(StaticToken::new("abc")?);
/// let mut client = ServiceBuilder::new().layer(layer).service(http_client);
/// # let request = Request::get("https://app.officernd.com/api/v2").body(Empty::new())?;
/// let response = client.ready().await?.call(request).await?;
/// # assert!(response.status().is_success());
/// # Ok(())
/// # }
/// ```
pub struct OfficeRndAuthLayer<C = TokenCache> {
    auth: Arc<Auth<C>>,
}

impl OfficeRndAuthLayer {
    /// The cache behind the layer: for readiness, warm-up, another layer.
    #[must_use]
    pub fn cache(&self) -> &TokenCache {
        &self.auth.source
    }
}

impl OfficeRndAuthLayer<Organizations> {
    /// The caches behind the layer.
    #[must_use]
    pub fn organizations(&self) -> &Organizations {
        &self.auth.source
    }
}

impl<C: TokenSource> OfficeRndAuthLayer<C> {
    pub(crate) fn from_parts(source: C, policy: Policy) -> Self {
        let auth = Arc::new(Auth { source, policy });
        Self { auth }
    }

    /// This layer with [`RetryUnauthorized`] above it, in that order: a request
    /// that is answered 401 is replayed once, with the new token.
    ///
    /// ```
    /// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
    /// use tower::ServiceBuilder;
    ///
    /// # fn main() -> Result<(), officernd_auth::Error> {
    /// let layer = OfficeRndAuthLayer::new(StaticToken::new("abc")?).with_retry();
    /// let stack = ServiceBuilder::new().layer(layer);
    /// # drop(stack);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_retry(self) -> Stack<Self, RetryLayer<RetryUnauthorized>> {
        Stack::new(self, RetryLayer::new(RetryUnauthorized::of_any()))
    }
}

impl<C> Clone for OfficeRndAuthLayer<C> {
    fn clone(&self) -> Self {
        let auth = Arc::clone(&self.auth);
        Self { auth }
    }
}

impl<S, C: TokenSource> Layer<S> for OfficeRndAuthLayer<C> {
    type Service = OfficeRndAuth<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        OfficeRndAuth::new(inner, Arc::clone(&self.auth))
    }
}

impl<C: TokenSource> fmt::Debug for OfficeRndAuthLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfficeRndAuthLayer")
            .field("source", &self.auth.source)
            .field("policy", &self.auth.policy)
            .finish()
    }
}
