//! The layer: a cache and a policy, around any client.

use std::sync::Arc;

use tower::retry::RetryLayer;
use tower_layer::{Layer, Stack};
use tower_service::Service;

use crate::cache::TokenCache;
use crate::error::BoxError;
use crate::future::ResponseFuture;
use crate::message::AuthRequest;
use crate::origin::Policy;
use crate::retry::RetryUnauthorized;
use crate::service::OfficeRndAuth;

/// Layer that applies [`OfficeRndAuth`], which sets the `Authorization` header of each request.
///
/// Clones, and the services that it creates, share one [`TokenCache`].
///
/// With [`OrganizationsLayer`](crate::organizations::OrganizationsLayer) one client serves several
/// organizations, each with its own layer.
///
/// # Where it goes in a stack
///
/// Place it below layers that send a request again (retry, redirect), so that each attempt gets
/// the current token. A timeout above it also covers the wait for a token; a timeout below it covers
/// only the request. [guide::composition](crate::guide::composition) has the complete order.
///
/// ```
/// use std::convert::Infallible;
///
/// use http::{Request, Response, header::AUTHORIZATION};
/// use officernd_auth::{BoxError, OfficeRndAuthLayer, StaticToken};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// // Stands in for the HTTP client.
/// let client = service_fn(|request: Request<()>| async move {
///     assert_eq!(request.headers()[AUTHORIZATION], "Bearer abc");
///     Ok::<_, Infallible>(Response::new(()))
/// });
/// let client = ServiceBuilder::new()
///     .layer(OfficeRndAuthLayer::new(StaticToken::new("abc")?))
///     .service(client);
///
/// let request = Request::get("https://app.officernd.com/api/v2/organizations").body(())?;
/// assert!(client.oneshot(request).await?.status().is_success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OfficeRndAuthLayer {
    shared: Arc<Shared>,
}

impl OfficeRndAuthLayer {
    pub(crate) fn over_cache(cache: TokenCache, policy: Policy) -> Self {
        let shared = Arc::new(Shared { cache, policy });
        Self { shared }
    }

    /// Returns the layer's cache, for a readiness probe, a warm-up or a second layer.
    #[must_use]
    pub fn cache(&self) -> &TokenCache {
        &self.shared.cache
    }

    /// Stacks [`RetryUnauthorized`] above this layer: a request that is answered 401 is replayed
    /// once, if a newer token is available or its fetch is due.
    #[must_use]
    pub fn with_retry(self) -> Stack<Self, RetryLayer<RetryUnauthorized>> {
        Stack::new(self, RetryLayer::new(RetryUnauthorized::new()))
    }

    /// Wraps an HTTP client, like [`Layer::layer`]. An unsupported client is a single compile error
    /// in the line of this call.
    pub fn client<S, Req>(&self, http_client: S) -> OfficeRndAuth<S>
    where
        S: Service<Req> + Clone,
        // With a bound on `S::Response`, a wrong client would cause two errors.
        S::Error: Into<BoxError>,
        Req: AuthRequest,
    {
        self.layer(http_client)
    }

    /// Sends one request through `inner`, which must be ready, without cloning the layer.
    #[inline]
    pub(crate) fn call<S, Req>(
        &self,
        inner: &mut S,
        request: Req,
    ) -> ResponseFuture<S::Future, S, Req>
    where
        S: Service<Req> + Clone,
        Req: AuthRequest,
    {
        self.shared.call(inner, None, request)
    }
}

impl<S> Layer<S> for OfficeRndAuthLayer {
    type Service = OfficeRndAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OfficeRndAuth::new(inner, Arc::clone(&self.shared))
    }
}

/// The state that a layer and its services share.
///
/// Aligned to cache lines of its own, apart from its reference count: a service that is cloned for
/// every request writes the count, and all services read this.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shared {
    pub(crate) cache: TokenCache,
    pub(crate) policy: Policy,
}
