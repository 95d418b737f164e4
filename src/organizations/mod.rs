//! One cache for each organization, selected by the slug in a request's path.
//!
//! [`OfficeRndAuthLayer::per_organization`](crate::OfficeRndAuthLayer::per_organization)
//! takes an [`OrganizationResolver`]: a map from slug to provider, or a lookup of your
//! own. An [`Organization`] in place of a provider has origins and a rate limit of its
//! own. [`Organizations`] is the set of caches behind the layer. The request extension
//! [`OrganizationSlug`] selects an organization whatever the path says.

mod entry;
mod extension;
mod map;
mod organization;
mod resolver;
pub(crate) mod slug;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::entry::Known;
pub use self::extension::OrganizationSlug;
pub(crate) use self::map::{OrganizationMap, PinnedMap};
pub use self::organization::Organization;
pub(crate) use self::resolver::Resolve;
pub use self::resolver::{OrganizationResolver, ResolverFn, resolver_fn};
use self::slug::{Slug, rejected};
use crate::cache::{TokenCache, TokenStatus};
use crate::clock::Clock;
use crate::error::Error;

/// A token cache for each organization, behind
/// [`OfficeRndAuthLayer::per_organization`](crate::OfficeRndAuthLayer::per_organization).
/// Clones share the caches.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
/// use officernd_auth::organizations::Organizations;
/// use std::collections::HashMap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = HashMap::from([("acme".to_owned(), StaticToken::new("abc")?)]);
/// let layer = OfficeRndAuthLayer::per_organization(tokens).build()?;
/// let organizations: &Organizations = layer.organizations();
/// assert!(organizations.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Organizations {
    map: Arc<OrganizationMap>,
    default: Option<Arc<str>>,
}

impl Organizations {
    pub(crate) fn new(map: Arc<OrganizationMap>, default: Option<Arc<str>>) -> Self {
        Self { map, default }
    }

    /// The cache of an organization: for warm-up and readiness. Asks the
    /// resolver if there is none yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Organization`](crate::ErrorKind::Organization) for a text
    /// that is not a slug, and for a slug without credentials; the resolver's
    /// own errors; `Timeout` after the `acquire_timeout`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn cache(&self, slug: &str) -> Result<TokenCache, Error> {
        let slug = Slug::new(slug).ok_or_else(not_a_slug)?;
        let known = self.find(slug.as_str(), self.deadline()).await?;
        Ok(known.cache)
    }

    /// The state of every organization in use.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, TokenStatus)> {
        self.map.statuses()
    }

    /// How many organizations are kept, unknown ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no organization is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The caches, for as long as one request looks for its own.
    #[inline]
    pub(crate) fn pin(&self) -> PinnedMap<'_> {
        self.map.pin()
    }

    /// The organization that a request to this path is about.
    #[inline]
    pub(crate) fn slug_of<'a>(&'a self, path: &'a str) -> Result<&'a str, Error> {
        let slug = Slug::of_path(path)?.map(Slug::as_str);
        slug.or(self.default.as_deref()).ok_or_else(|| {
            rejected(
                "the path names no organization (/api/v2/organizations/{slug}/...), and there is \
                 no default_organization",
            )
        })
    }

    /// An organization; asks the resolver if it is not known.
    pub(crate) async fn find(&self, slug: &str, deadline: Instant) -> Result<Known, Error> {
        self.map.find(slug, deadline).await
    }

    /// Until when a request that comes now waits, for resolver and token.
    pub(crate) fn deadline(&self) -> Instant {
        self.map.deadline()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.map.clock()
    }
}

fn not_a_slug() -> Error {
    rejected("not a slug: letters, digits, '-' and '_', at most 63 of them")
}

impl fmt::Debug for Organizations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}
