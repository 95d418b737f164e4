//! The layer: puts the token on requests. It knows HTTP and the cache; it
//! knows no providers.

mod challenge;
mod future;
mod layer;
mod message;
mod retry;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::OfficeRndAuthLayer;
pub use self::message::{AuthRequest, AuthResponse, SkipAuth, TokenRejected};
pub use self::retry::{RetryFuture, RetryUnauthorized};
pub use self::service::OfficeRndAuth;

use crate::cache::TokenCache;
use crate::origin::OriginPolicy;

/// What a layer and its services share.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) cache: TokenCache,
    pub(crate) policy: Policy,
}

/// Which requests get the token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) origins: OriginPolicy,
    /// Requests to other origins go on without a token, instead of failing.
    pub(crate) pass_foreign: bool,
    /// A caller's own `Authorization` stays.
    pub(crate) if_not_present: bool,
}
