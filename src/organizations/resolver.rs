//! Finds the layer of an organization.

use std::collections::HashMap;
use std::future::Future;
use std::hash::BuildHasher;

use crate::{Error, OfficeRndAuthLayer};

/// Finds the layer of an organization by its slug.
///
/// An app of OfficeRnD belongs to one organization, so each organization has its own credentials.
/// A `HashMap` from slug to layer is a resolver, and [`resolver_fn`] creates one from a closure.
///
/// ```
/// use officernd_auth::organizations::{OrganizationResolver, OrganizationsLayer};
/// use officernd_auth::{Error, OfficeRndAuthLayer, StaticToken};
///
/// struct Database;
///
/// impl OrganizationResolver for Database {
///     async fn resolve(&self, slug: &str) -> Result<Option<OfficeRndAuthLayer>, Error> {
///         match slug {
///             "acme" => Ok(Some(OfficeRndAuthLayer::new(StaticToken::new("abc")?))),
///             _ => Ok(None),
///         }
///     }
/// }
///
/// let layer = OrganizationsLayer::new(Database);
/// # drop(layer);
/// ```
pub trait OrganizationResolver: Send + Sync + 'static {
    /// Returns the layer of this organization, or `None` if it has no credentials.
    ///
    /// Called once for each organization in use, and canceled after 30 s. `None` is remembered for
    /// 60 s, doubling to 10 min.
    ///
    /// # Errors
    ///
    /// An error is remembered for the [`backoff`](fn@crate::backoff) of its kind.
    fn resolve(
        &self,
        slug: &str,
    ) -> impl Future<Output = Result<Option<OfficeRndAuthLayer>, Error>> + Send;
}

impl<H: BuildHasher + Send + Sync + 'static> OrganizationResolver
    for HashMap<String, OfficeRndAuthLayer, H>
{
    async fn resolve(&self, slug: &str) -> Result<Option<OfficeRndAuthLayer>, Error> {
        Ok(self.get(slug).cloned())
    }
}

/// Creates a resolver from an async closure that takes the slug.
///
/// ```
/// use officernd_auth::organizations::{OrganizationsLayer, resolver_fn};
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
///
/// let layer = OrganizationsLayer::new(resolver_fn(|slug: String| async move {
///     // ... look the organization up ...
///     let token = StaticToken::new(format!("token-of-{slug}"))?;
///     Ok(Some(OfficeRndAuthLayer::new(token)))
/// }));
/// # drop(layer);
/// ```
pub fn resolver_fn<F, Fut>(resolve: F) -> impl OrganizationResolver
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<OfficeRndAuthLayer>, Error>> + Send,
{
    ResolverFn(resolve)
}

struct ResolverFn<F>(F);

impl<F, Fut> OrganizationResolver for ResolverFn<F>
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<OfficeRndAuthLayer>, Error>> + Send,
{
    fn resolve(
        &self,
        slug: &str,
    ) -> impl Future<Output = Result<Option<OfficeRndAuthLayer>, Error>> + Send {
        (self.0)(slug.to_owned())
    }
}
