//! The sources of new caches.

use std::fmt;
use std::sync::Arc;

use crate::allowance::Allowance;
use crate::clock::Clock;
use crate::organizations::Resolve;
use crate::provider::DynProvider;

/// The source of a [`Builder`](super::Builder) that makes caches: one for a
/// [`Provider`], or one for each organization of a [`Resolver`].
///
/// ```
/// use officernd_auth::Builder;
/// use officernd_auth::builder::{New, Provider, Resolver};
///
/// fn one(builder: Builder<New<Provider>>) -> Builder {
///     builder.keep_warm(true)
/// }
/// fn many(builder: Builder<New<Resolver>>) -> Builder<New<Resolver>> {
///     builder.keep_warm(true).max_organizations(100)
/// }
/// # let token = officernd_auth::StaticToken::new("abc").unwrap();
/// # drop(one(officernd_auth::OfficeRndAuthLayer::builder(token)));
/// ```
#[derive(Debug)]
pub struct New<T> {
    pub(super) from: T,
    pub(super) allowance: Option<Allowance>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The provider of a new cache. [`New`] has an example.
pub struct Provider(pub(super) Box<dyn DynProvider>);

/// The resolver that finds each organization's provider. [`New`] has an example.
pub struct Resolver(pub(super) Box<dyn Resolve>);

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}
