//! Several organizations behind one client: the slug in a request's path selects the layer.
//!
//! [`OrganizationsLayer`] gets the [`OfficeRndAuthLayer`](crate::OfficeRndAuthLayer) of each organization from an
//! [`OrganizationResolver`], and keeps it while requests come. Allowed origins, rate limit, timeouts and the cache
//! belong to that layer. The request extension [`OrganizationSlug`] selects an organization regardless of the path.
//!
//! This module uses public items of the crate only.

#[cfg(feature = "reqwest-middleware")]
mod adapter;
mod layer;
mod map;
mod resolver;
mod service;
mod slug;

pub use self::layer::OrganizationsLayer;
pub use self::resolver::{OrganizationResolver, resolver_fn};
pub use self::service::{OrganizationsAuth, OrganizationsFuture};
pub use self::slug::OrganizationSlug;
