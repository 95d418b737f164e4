//! Finds the provider of an organization.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::BuildHasher;
use std::pin::Pin;

use super::Organization;
use crate::error::Error;

/// Finds the provider of an organization by its slug.
///
/// OfficeRnD's credentials belong to an app of one organization; a company with
/// several organizations has several apps. A map from slug to provider is a
/// resolver, and so is an async closure of the slug ([`resolver_fn`]). An
/// [`Organization`] in place of a provider has settings of its own.
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
    /// What fetches the organization's tokens: a
    /// [`TokenProvider`](crate::TokenProvider), or an [`Organization`].
    type Provider: Into<Organization>;

    /// The provider of this organization; `None` if it has no credentials.
    /// Called once for each organization in use; an answer of `None` is
    /// remembered for 60 s.
    ///
    /// # Errors
    ///
    /// The kind decides when the resolver is asked again, as for
    /// [`TokenProvider::fetch`](crate::TokenProvider::fetch).
    fn resolve(
        &self,
        slug: &str,
    ) -> impl Future<Output = Result<Option<Self::Provider>, Error>> + Send;
}

/// What a resolver found, without the provider's type.
pub(crate) type Resolved = Result<Option<Organization>, Error>;

/// [`OrganizationResolver`] as an object: the map has no type parameter.
pub(crate) trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, slug: &'a str) -> Pin<Box<dyn Future<Output = Resolved> + Send + 'a>>;
}

impl<R: OrganizationResolver> Resolve for R {
    fn resolve<'a>(&'a self, slug: &'a str) -> Pin<Box<dyn Future<Output = Resolved> + Send + 'a>> {
        Box::pin(async move {
            let provider = OrganizationResolver::resolve(self, slug).await?;
            Ok(provider.map(Into::into))
        })
    }
}

impl<P, H> OrganizationResolver for HashMap<String, P, H>
where
    P: Into<Organization> + Clone + Send + Sync + 'static,
    H: BuildHasher + Send + Sync + 'static,
{
    type Provider = P;

    async fn resolve(&self, slug: &str) -> Result<Option<P>, Error> {
        Ok(self.get(slug).cloned())
    }
}

impl<P> OrganizationResolver for BTreeMap<String, P>
where
    P: Into<Organization> + Clone + Send + Sync + 'static,
{
    type Provider = P;

    async fn resolve(&self, slug: &str) -> Result<Option<P>, Error> {
        Ok(self.get(slug).cloned())
    }
}

/// The resolver that [`resolver_fn`] returns.
///
/// ```
/// use officernd_auth::StaticToken;
/// use officernd_auth::organizations::{ResolverFn, resolver_fn};
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
/// use officernd_auth::organizations::resolver_fn;
/// use officernd_auth::{OfficeRndAuthLayer, StaticToken};
///
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// let layer = OfficeRndAuthLayer::per_organization(resolver_fn(|slug: String| async move {
///     // ... look the organization up ...
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
    P: Into<Organization>,
{
    ResolverFn { resolve }
}

impl<F, Fut, P> OrganizationResolver for ResolverFn<F>
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<P>, Error>> + Send,
    P: Into<Organization>,
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
