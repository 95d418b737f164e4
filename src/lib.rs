// Its examples want all that they show.
#![cfg_attr(
    all(
        feature = "reqwest",
        any(not(doctest), all(feature = "file", feature = "redis"))
    ),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(feature = "reqwest"),
    doc = "Tower middleware that keeps an OfficeRnD OAuth 2.0 token ready and puts it on every request."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod cache;
mod clock;
pub mod config;
mod credentials;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod middleware;
mod origin;
mod provider;
mod secret;
mod slug;
#[cfg(feature = "store")]
pub mod store;
mod sync;
mod syntax;
#[cfg(all(feature = "testing", any(doc, doctest)))]
pub mod guide {
    #![doc = include_str!("../docs/composition.md")]
}
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod trace;

pub use self::builder::{Builder, CachedBuilder, OrganizationsBuilder};
pub use self::cache::{Phase, TokenCache, TokenStatus};
pub use self::clock::{Clock, Sleep, TokioClock};
pub use self::credentials::ClientCredentials;
pub use self::error::{BoxError, ConfigError, Error, ErrorKind};
pub use self::middleware::{
    AuthRequest, AuthResponse, OfficeRndAuth, OfficeRndAuthLayer, Organizations, ResponseFuture,
    RetryFuture, RetryUnauthorized, SkipAuth, TokenRejected, TokenSource,
};
pub use self::provider::{
    Allowance, Cause, FetchContext, HttpTokenProvider, OrganizationResolver, Permit, ProviderFn,
    ResolverFn, StaticToken, TokenProvider, Urgency, provider_fn, resolver_fn,
};
#[cfg(feature = "store")]
pub use self::provider::{KeyMaterial, KeyedProvider, SharedTokenProvider, StoreStatus};
pub use self::secret::Secret;
#[cfg(shuttle)]
#[doc(hidden)]
pub use self::sync::{kill_flights, settle_flights};
pub use self::token::AccessToken;
#[cfg(feature = "metrics")]
pub use self::trace::describe_metrics;
