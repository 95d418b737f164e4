//! Several organizations behind one client: the slug in a request's path selects the layer.
//!
//! [`OrganizationsLayer`] gets the [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer) of each organization from an
//! [`OrganizationResolver`], and keeps it while it is in use. Allowed origins, rate limit, timeouts and the cache
//! belong to that layer.

mod map;
mod resolver;
mod slug;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::retry::RetryLayer;
use tower_layer::{Layer, Stack};
use tower_service::Service;

use self::map::Map;
pub use self::resolver::{OrganizationResolver, resolver_fn};
pub use self::slug::OrganizationSlug;
use crate::future::{Next, ResponseFuture};
use crate::message::{AuthRequest, AuthResponse, skips_auth};
use crate::observability::count_request;
use crate::service::{refuse, take_ready};
use crate::{BoxError, RetryUnauthorized, TokenStatus};

/// Layer that sends each request through the [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer) of its organization.
///
/// The organization is the `{slug}` of `/api/v1|v2/organizations/{slug}/...`, or the
/// [`OrganizationSlug`] in the request's extensions. Clones share the organizations.
///
/// A path that a server could read as another organization's (dot segments, encoded or repeated
/// slashes, a different case) is refused with
/// [`ErrorKind::Organization`](crate::ErrorKind::Organization). A path without a slug is refused
/// too, even to a foreign origin, unless there is a
/// [`default_organization`](Self::default_organization).
///
/// ```
/// use officernd_auth::organizations::OrganizationsLayer;
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use std::collections::HashMap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let acme = OfficeRndAuthLayer::new(StaticToken::new("abc")?);
/// let trial = OfficeRndAuthLayer::builder(StaticToken::new("def")?)
///     .allow_origin("https://staging.officernd.com")
///     .build()?;
/// let layers = HashMap::from([("acme".to_owned(), acme), ("trial".to_owned(), trial)]);
/// let layer = OrganizationsLayer::new(layers).default_organization("acme");
/// assert!(layer.statuses().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OrganizationsLayer {
    map: Arc<Map>,
}

impl OrganizationsLayer {
    /// Creates a layer over the organizations of this resolver.
    #[must_use]
    pub fn new(resolver: impl OrganizationResolver) -> Self {
        Self {
            map: Arc::new(Map::new(resolver)),
        }
    }

    /// Sets the organization of requests without one in their path. By default, and if the string is
    /// not a slug, these requests are refused.
    #[must_use]
    pub fn default_organization(self, slug: impl AsRef<str>) -> Self {
        self.with(|map| map.default = Some(OrganizationSlug::new(slug)))
    }

    /// Sets the maximum number of organizations to keep, at least 1. Those without credentials are
    /// dropped first. Default: 1,000.
    #[must_use]
    pub fn max_organizations(self, max: usize) -> Self {
        self.with(|map| map.max = max.max(1))
    }

    /// Sets how long an organization is kept without a request, at least 1 s. It is dropped within
    /// twice that time. Default: 1 h.
    ///
    /// Only this layer's handle is dropped: the token cache stays while the resolver, such as a
    /// `HashMap`, keeps a clone of its layer.
    #[must_use]
    pub fn idle_after(self, idle: Duration) -> Self {
        self.with(|map| map.idle_after = idle.max(Duration::from_secs(1)))
    }

    /// Changes the settings, in a map without organizations, so that clones of this layer keep theirs.
    fn with(self, change: impl FnOnce(&mut Map)) -> Self {
        let mut map = self.map.emptied();
        change(&mut map);
        Self { map: Arc::new(map) }
    }

    /// Returns the slug and the status of every organization in use.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, TokenStatus)> {
        let entries = self.map.entries.load();
        let known = entries.iter().filter_map(|(slug, entry)| {
            let layer = entry.layer.get()?;
            Some((slug.to_string(), layer.cache().status()))
        });
        known.collect()
    }

    /// Stacks [`RetryUnauthorized`] above this layer: a request that is answered 401 is replayed
    /// once, if a newer token of its organization is available or its fetch is due.
    #[must_use]
    pub fn with_retry(self) -> Stack<Self, RetryLayer<RetryUnauthorized>> {
        Stack::new(self, RetryLayer::new(RetryUnauthorized::new()))
    }

    /// Finds the layer of a request with this extension and this path. Counts the request if there is none.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) async fn select(
        &self,
        chosen: Option<&OrganizationSlug>,
        path: &str,
    ) -> Result<crate::OfficeRndAuthLayer, crate::Error> {
        let slug = self.map.slug(chosen, path);
        let slug = slug.inspect_err(|_| count_request("refused"))?;
        let entries = self.map.entries.load_full();
        if let Some(layer) = entries.get(slug).and_then(|entry| entry.layer()) {
            return Ok(layer.clone());
        }
        let found = Arc::clone(&self.map).find(slug.into()).await;
        found.inspect_err(|_| count_request("failed"))
    }
}

impl<S> Layer<S> for OrganizationsLayer {
    type Service = OrganizationsAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let map = Arc::clone(&self.map);
        OrganizationsAuth { inner, map }
    }
}

/// Middleware that sends each request through the layer of its organization.
///
/// Created by [`OrganizationsLayer`]. `poll_ready` is that of the inner service.
///
/// # Errors
///
/// Returns the errors of [`OfficeRndAuth`](crate::OfficeRndAuth), and
/// [`ErrorKind::Organization`](crate::ErrorKind::Organization) for a path without an organization,
/// or for an organization without credentials.
///
/// # Cancel safety
///
/// A dropped future gives up its request. Another request that waits for the same organization
/// calls the resolver again; a token fetch continues.
#[derive(Debug, Clone)]
pub struct OrganizationsAuth<S> {
    inner: S,
    map: Arc<Map>,
}

impl<S, Req> Service<Req> for OrganizationsAuth<S>
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
        if skips_auth(&request) {
            count_request("passed");
            return ResponseFuture::sent(self.inner.call(request), None);
        }
        let chosen = request.extensions().and_then(|all| all.get());
        let slug = match self.map.slug(chosen, request.path()) {
            Ok(slug) => slug,
            Err(error) => return refuse(&mut self.inner, error),
        };
        let entries = self.map.entries.load();
        if let Some(layer) = entries.get(slug).and_then(|entry| entry.layer()) {
            return layer.call(&mut self.inner, request);
        }
        let find = Arc::clone(&self.map).find(slug.into());
        let find = Box::pin(async {
            let found = find.await.map(Next::Layer);
            found.inspect_err(|_| count_request("failed"))
        });
        ResponseFuture::waiting(find, take_ready(&mut self.inner), request)
    }
}
