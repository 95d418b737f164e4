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

pub mod allowance;
mod builder;
mod cache;
pub mod clock;
pub mod config;
mod credentials;
mod error;
#[cfg(feature = "store")]
pub mod fleet;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(feature = "testing", any(doc, doctest)))]
pub mod guide {
    #![doc = include_str!("../docs/composition.md")]
}
pub mod middleware;
mod oauth;
pub mod observability;
pub mod organizations;
mod origin;
pub mod provider;
mod secret;
mod sync;
mod syntax;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use self::allowance::Allowance;
pub use self::builder::{Builder, CachedBuilder, OrganizationsBuilder};
pub use self::cache::{Phase, TokenCache, TokenStatus};
pub use self::credentials::ClientCredentials;
pub use self::error::{BoxError, ConfigError, Error, ErrorKind};
#[cfg(feature = "store")]
pub use self::fleet::SharedTokenProvider;
pub use self::middleware::{
    OfficeRndAuth, OfficeRndAuthLayer, RetryUnauthorized, SkipAuth, TokenRejected,
};
pub use self::oauth::HttpTokenProvider;
pub use self::organizations::resolver_fn;
pub use self::provider::{FetchContext, StaticToken, TokenProvider, provider_fn};
pub use self::secret::Secret;
#[cfg(shuttle)]
#[doc(hidden)]
pub use self::sync::{kill_flights, settle_flights};
pub use self::token::AccessToken;

/// The first edition's address of [`fleet::RedisStore`].
#[cfg(feature = "redis")]
#[doc(hidden)]
pub mod store {
    pub use crate::fleet::RedisStore;
}
