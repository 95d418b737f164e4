use std::sync::Arc;
use std::time::Duration;

use tower::retry::RetryLayer;
use tower_layer::{Layer, Stack};

use super::map::Map;
use super::resolver::OrganizationResolver;
use super::service::OrganizationsAuth;
use super::slug::OrganizationSlug;
use crate::{RetryUnauthorized, TokenStatus};

/// Sends each request through the [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer) of its
/// organization.
///
/// The organization is the `{slug}` of `/api/v1|v2/organizations/{slug}/...`, or the
/// [`OrganizationSlug`] in the request's extensions. Clones share the organizations.
///
/// A path that a server could read as another organization's (dot segments, encoded slashes,
/// doubled slashes, another case) is refused with
/// [`ErrorKind::Organization`](crate::ErrorKind::Organization). So is a path without a slug, even
/// to a foreign origin, unless there is a
/// [`default_organization`](Self::default_organization).
///
/// | setting | default |
/// |---|---|
/// | [`default_organization`](Self::default_organization) | none: a path without a slug is an error |
/// | [`max_organizations`](Self::max_organizations) | 1,000 |
/// | [`idle_after`](Self::idle_after) | 1 h |
///
/// ```
/// use officernd_auth::organizations::OrganizationsLayer;
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use std::collections::HashMap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let acme = OfficeRndAuthLayer::new(StaticToken::new("abc")?);
/// // No token of one organization goes to the hosts of the other.
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
    pub(super) map: Arc<Map>,
}

impl OrganizationsLayer {
    /// Makes a layer over the organizations that this resolver knows.
    #[must_use]
    pub fn new(resolver: impl OrganizationResolver) -> Self {
        Self {
            map: Arc::new(Map::new(resolver)),
        }
    }

    /// Sets the organization of requests whose path names none.
    ///
    /// If the string is not a slug, these requests are refused.
    #[must_use]
    pub fn default_organization(self, slug: impl AsRef<str>) -> Self {
        self.with(|map| map.default = Some(OrganizationSlug::new(slug)))
    }

    /// Sets the maximum number of organizations to keep, at least 1. Unknown ones make room first.
    #[must_use]
    pub fn max_organizations(self, max: usize) -> Self {
        self.with(|map| map.max = max.max(1))
    }

    /// Sets how long an organization is kept without a request, at least 1 s. It is dropped within
    /// twice that time.
    ///
    /// Only this layer's handle is dropped: the token cache stays while the resolver, such as a
    /// `HashMap`, keeps a clone of its layer.
    #[must_use]
    pub fn idle_after(self, idle: Duration) -> Self {
        self.with(|map| map.idle_after = idle.max(Duration::from_secs(1)))
    }

    /// Clones of this layer keep their settings: the map with the new ones starts empty.
    fn with(self, change: impl FnOnce(&mut Map)) -> Self {
        let mut map = self.map.emptied();
        change(&mut map);
        Self { map: Arc::new(map) }
    }

    /// Returns the slug and the state of every organization in use.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, TokenStatus)> {
        self.map.statuses()
    }

    /// Stacks [`RetryUnauthorized`] above this layer: a request that is answered 401 is replayed
    /// once, with the new token of its organization.
    #[must_use]
    pub fn with_retry(self) -> Stack<Self, RetryLayer<RetryUnauthorized>> {
        Stack::new(self, RetryLayer::new(RetryUnauthorized::new()))
    }
}

impl<S> Layer<S> for OrganizationsLayer {
    type Service = OrganizationsAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OrganizationsAuth::new(inner, Arc::clone(&self.map))
    }
}
