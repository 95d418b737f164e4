//! The layer and its service, and what they put on requests and responses.
//!
//! [`OfficeRndAuthLayer`] makes [`OfficeRndAuth`] services, which add the header.
//! [`RetryUnauthorized`] replays a request after a 401. The request extension
//! [`SkipAuth`] sends one request as it is; the response extension
//! [`TokenRejected`] marks a 401.
//!
//! Knows HTTP and the cache, not providers.

#[cfg(feature = "reqwest-middleware")]
mod adapter;
mod future;
mod host;
mod layer;
mod request;
mod response;
mod retry;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::OfficeRndAuthLayer;
pub use self::request::{AuthRequest, RequestTarget, SkipAuth};
pub use self::response::{AuthResponse, TokenRejected};
pub use self::retry::{RetryFuture, RetryUnauthorized};
pub use self::service::OfficeRndAuth;

use crate::cache::TokenCache;
use crate::origin::OriginPolicy;

/// What a layer and its services share. On cache lines of its own, away from
/// the count of its clones: a service that is cloned for every request writes
/// that count, and all of them read this.
#[derive(Debug)]
#[repr(align(128))]
struct Shared {
    cache: TokenCache,
    policy: Policy,
}

/// Decides which requests carry the token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) origins: OriginPolicy,
    /// Requests to other origins go out without a token, instead of failing.
    pub(crate) pass_foreign: bool,
    /// Requests keep an `Authorization` header that they have.
    pub(crate) if_not_present: bool,
}

mod sealed {
    /// Keeps other crates from implementing a trait.
    #[expect(unnameable_types, reason = "so nobody can implement it")]
    pub trait Sealed {}
}
