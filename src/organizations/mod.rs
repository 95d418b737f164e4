//! One cache for each organization.

mod map;
mod resolver;
pub(crate) mod slug;

pub(crate) use self::map::{Bounds, Directory, Resolve, Resolved};
pub use self::resolver::{OrganizationResolver, ResolverFn, resolver_fn};
pub use crate::middleware::Organizations;
