//! The layer: puts the token on requests. It knows HTTP and the cache; it
//! knows no providers.

mod challenge;
mod future;
mod layer;
mod message;
mod retry;
mod service;
mod source;

#[cfg(any(fuzzing, test))]
pub(crate) use self::challenge::insufficient_scope;
pub use self::future::ResponseFuture;
pub use self::layer::OfficeRndAuthLayer;
pub use self::message::{AuthRequest, AuthResponse, SkipAuth, TokenRejected};
pub use self::retry::{RetryFuture, RetryUnauthorized};
pub use self::service::OfficeRndAuth;
pub use self::source::{Organizations, TokenSource};

use crate::origin::OriginPolicy;

/// What a layer and its services share. On cache lines of its own, away from
/// the count of its clones: a service that is cloned for every request writes
/// that count, and all of them read this.
#[derive(Debug)]
#[repr(align(128))]
struct Auth<C> {
    source: C,
    policy: Policy,
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
