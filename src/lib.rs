#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod cache;
mod clock;
pub mod config;
mod credentials;
mod error;
mod middleware;
mod origin;
mod provider;
mod secret;
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
pub use self::secret::Secret;
#[cfg(shuttle)]
#[doc(hidden)]
pub use self::sync::kill_flights;
pub use self::token::AccessToken;
#[cfg(feature = "metrics")]
pub use self::trace::describe_metrics;
