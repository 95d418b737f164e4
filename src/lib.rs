//! draft
mod builder;
mod cache;
mod clock;
mod credentials;
mod error;
mod middleware;
mod origin;
mod provider;
mod secret;
#[cfg(feature = "store")]
pub mod store;
mod sync;
mod syntax;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod trace;

pub use self::builder::{Builder, CachedBuilder};
pub use self::cache::{Phase, TokenCache, TokenStatus};
pub use self::clock::{Clock, Sleep, TokioClock};
pub use self::credentials::ClientCredentials;
pub use self::error::{BoxError, ConfigError, Error, ErrorKind};
pub use self::middleware::{
    AuthRequest, AuthResponse, OfficeRndAuth, OfficeRndAuthLayer, ResponseFuture, RetryFuture,
    RetryUnauthorized, SkipAuth, TokenRejected,
};
pub use self::provider::{
    Allowance, Cause, FetchContext, HttpTokenProvider, Permit, ProviderFn, StaticToken,
    TokenProvider, Urgency, provider_fn,
};
#[cfg(feature = "store")]
pub use self::provider::{KeyMaterial, KeyedProvider, SharedTokenProvider, StoreStatus};
pub use self::secret::Secret;
#[cfg(shuttle)]
#[doc(hidden)]
pub use self::sync::kill_flights;
pub use self::token::AccessToken;
