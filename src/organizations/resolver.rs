//! Which provider mints an organization's tokens.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::BuildHasher;

use crate::error::Error;
use crate::provider::TokenProvider;

/// Finds the provider of an organization by its slug.
///
/// OfficeRnD's credentials belong to an app made in one organization; a company
/// with several has several. A map of providers is a resolver, and so is an
/// async closure of the slug.
///
/// ```
/// use officernd_auth::{Error, OfficeRndAuthLayer, StaticToken};
/// use officernd_auth::organizations::OrganizationResolver;
///
/// struct Database;
///
/// impl OrganizationResolver for Database {
///     type Provider = StaticToken;
///
///     async fn resolve(&self, slug: &str) -> Result<Option<StaticToken>, Error> {
///         match slug {
///             "acme" => Ok(Some(StaticToken::new("acmes-token")?)),
///             _ => Ok(None),
///         }
///     }
/// }
///
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// let layer = OfficeRndAuthLayer::per_organization(Database).build()?;
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
pub trait OrganizationResolver: Send + Sync + 'static {
    /// What mints the organization's tokens.
    type Provider: TokenProvider;

    /// The provider of this organization; `None` if it has no credentials.
    /// Called once for each organization in use; an answer of `None` is
    /// remembered for 60 s.
    ///
    /// # Errors
    ///
    /// The kind decides how long nobody asks again, as for
    /// [`TokenProvider::fetch`].
    fn resolve(
        &self,
        slug: &str,
    ) -> impl Future<Output = Result<Option<Self::Provider>, Error>> + Send;
}

impl<P, H> OrganizationResolver for HashMap<String, P, H>
where
    P: TokenProvider + Clone,
    H: BuildHasher + Send + Sync + 'static,
{
    type Provider = P;

    async fn resolve(&self, slug: &str) -> Result<Option<P>, Error> {
        Ok(self.get(slug).cloned())
    }
}

impl<P: TokenProvider + Clone> OrganizationResolver for BTreeMap<String, P> {
    type Provider = P;

    async fn resolve(&self, slug: &str) -> Result<Option<P>, Error> {
        Ok(self.get(slug).cloned())
    }
}

/// The resolver that [`resolver_fn`] returns.
///
/// ```
/// use officernd_auth::{StaticToken, resolver_fn};
/// use officernd_auth::organizations::ResolverFn;
///
/// fn named<F>(resolver: ResolverFn<F>) -> ResolverFn<F> {
///     resolver
/// }
/// let resolver = named(resolver_fn(|slug: String| async move {
///     StaticToken::new(slug).map(Some)
/// }));
/// # drop(resolver);
/// ```
#[derive(Clone)]
pub struct ResolverFn<F> {
    resolve: F,
}

/// Makes a resolver from an async closure that takes the slug.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken, resolver_fn};
///
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// let layer = OfficeRndAuthLayer::per_organization(resolver_fn(|slug: String| async move {
///     // … look the organization up …
///     StaticToken::new(format!("token-of-{slug}")).map(Some)
/// }))
/// .build()?;
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
pub fn resolver_fn<F, Fut, P>(resolve: F) -> ResolverFn<F>
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<P>, Error>> + Send,
    P: TokenProvider,
{
    ResolverFn { resolve }
}

impl<F, Fut, P> OrganizationResolver for ResolverFn<F>
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<P>, Error>> + Send,
    P: TokenProvider,
{
    type Provider = P;

    fn resolve(&self, slug: &str) -> impl Future<Output = Result<Option<P>, Error>> + Send {
        (self.resolve)(slug.to_owned())
    }
}

impl<F> std::fmt::Debug for ResolverFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolverFn").finish_non_exhaustive()
    }
}
