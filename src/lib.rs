//! Tower middleware that keeps an [OfficeRnD] OAuth 2.0 token ready and puts it on every request.
//!
//! It fetches one token, refreshes it in the background before it expires, and never sends two token requests at once.
//! OfficeRnD's token endpoint accepts five requests a minute, failed ones included, and a token is valid for an hour. A
//! request that finds a token waits for no lock and, for `http::Request`, allocates nothing.
//!
//! ```no_run
//! # #[cfg(feature = "reqwest")] mod program {
//! use officernd_auth::OfficeRndAuthLayer;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), tower::BoxError> {
//!     let mut client = ServiceBuilder::new()
//!         .layer(OfficeRndAuthLayer::from_env()?)
//!         .service(reqwest::Client::new());
//!
//!     let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
//!     let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
//!     let response = client.ready().await?.call(request).await?;
//!     println!("{} {}", response.status(), response.text().await?);
//!     Ok(())
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! [`OfficeRndAuthLayer::from_env`] reads `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET`, `OFFICERND_SCOPES` and the
//! variables of all other [`Settings`]. [`OfficeRndAuthLayer::builder`] changes settings in code. The [cookbook] has
//! complete programs for hyper, axum, reqwest-middleware, reqwest 0.12, tests, settings in TOML and more.
//!
//! # Three parts
//!
//! - A [`TokenProvider`] fetches a token: [`HttpTokenProvider`] from OfficeRnD, [`provider_fn`] from your own function.
//! - A [`TokenCache`] keeps one token ready. It shares one fetch among all waiting requests, backs off after failures,
//!   and reports its [`status`](TokenCache::status).
//! - [`OfficeRndAuthLayer`] wraps any tower service of `http::Request` or `reqwest::Request` (reqwest 0.13). Its service
//!   [`OfficeRndAuth`] adds the `Authorization` header, to allowed origins only.
//!
//! # Where to go next
//!
//! | task | see |
//! |---|---|
//! | find the cause of an error | [guide::troubleshooting] |
//! | change when tokens are refreshed, which hosts get them, how long requests wait | [`Builder`] |
//! | replay a request after a 401 | [`OfficeRndAuthLayer::with_retry`] |
//! | combine retry, timeout, redirects, tracing and limits in the right order | [guide::composition] |
//! | serve several organizations through one client | [`organizations`] |
//! | share one token between pods or processes | the crate [`officernd-auth-store`](https://docs.rs/officernd-auth-store) |
//! | rotate a client secret in a file or a secret manager | [`ClientCredentials`] |
//! | implement a readiness probe | [`TokenStatus`], [`TokenCache::warm_up`], [`Builder::keep_warm`] |
//! | record spans, events and metrics | [guide::observability] |
//! | test your service without OfficeRnD | [`testing`], or over HTTP the crate [`officernd-simulator`](https://docs.rs/officernd-simulator) |
//! | see how faults of a token endpoint are handled | [guide::faults] |
//! | use a token outside tower | [`TokenCache::token`], [`AccessToken`] |
//!
//! # What happens to a request
//!
//! | situation | what happens |
//! |---|---|
//! | the token is fresh | the request is sent with it at once |
//! | the token is about to expire | the request is sent with it; a fetch starts in the background |
//! | the token endpoint fails | the old token is used until 10 s before its expiry; then requests fail with an [`Error`] |
//! | 10,000 requests find no token | one token request is sent; all of them wait for it |
//! | a caller drops its request | the fetch continues, for the next caller |
//! | the API answers 401 | the token is replaced in the background |
//! | tokens are revoked before they expire, but not within 5 min | each is replaced at its first 401; with [`with_retry`](OfficeRndAuthLayer::with_retry) no request fails |
//! | every token is answered 401, for example without a scope | replacements slow down to one every 10 min |
//! | the URL has a host other than `app.officernd.com` and `hybrid.officernd.com` | the request fails with [`ErrorKind::ForeignOrigin`], unless [`allow_origin`](Builder::allow_origin) adds the host |
//!
//! # Errors
//!
//! The service's error is [`BoxError`], like tower's own. [`Error::find`] returns this crate's [`Error`] in it:
//! [`kind`](Error::kind) says what failed, [`retry_after`](Error::retry_after) when a token may be available again, and
//! [`is_transient`](Error::is_transient) whether waiting can help. A request without its token is never sent.
//! Constructors and `build` return a [`ConfigError`]. Errors contain no secret and no response body.
//!
//! # Features
//!
//! Features are additive. The last column is the number of dependencies, without build dependencies.
//!
//! | feature | default | adds | dependencies |
//! |---|---|---|--:|
//! | none | | the layer, the cache, [`HttpTokenProvider`] over any tower HTTP service | 42 |
//! | `reqwest` | yes | the layer over `reqwest::Client`, and [`HttpTokenProvider::new`]; plain http only | 83 |
//! | `rustls` | yes | TLS for both, by rustls with aws-lc-rs | 95 |
//! | `rustls-no-provider` | no | TLS by rustls with the cryptography provider that your program installs | 93 |
//! | `native-tls` | no | TLS by the operating system, OpenSSL on Linux | 95 |
//! | `reqwest-middleware` | no | the layer as a middleware of reqwest-middleware's client | 88 |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade | 44 |
//! | `testing` | no | [`ScriptedProvider`](testing::ScriptedProvider) and [`ManualClock`](testing::ManualClock) for unit tests | 42 |
//!
//! # Requirements
//!
//! Rust 1.85, and a tokio runtime with timers. There is no permanent task, unless [`keep_warm`](Builder::keep_warm) or
//! several [`organizations`] are in use. The crate has no `unsafe` code and is for servers: OfficeRnD's token endpoint
//! does not answer CORS preflights, and a web page would expose the client secret.
//!
//! [OfficeRnD]: https://www.officernd.com
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "reqwest", feature = "testing")),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the crate page links to every feature"
    )
)]

mod backoff;
mod builder;
mod cache;
pub mod clock;
#[cfg(all(doc, any(not(doctest), feature = "reqwest-middleware")))]
pub mod cookbook {
    #![doc = include_str!("../docs/cookbook.md")]
}
pub mod credentials;
mod error;
mod future;
#[cfg(doc)]
pub mod guide;
mod layer;
mod message;
mod oauth;
pub mod observability;
pub mod organizations;
mod origin;
pub mod provider;
pub mod rate_limit;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
mod retry;
mod secret;
mod service;
mod settings;
#[cfg_attr(shuttle, path = "sync/model.rs")]
mod sync;
mod syntax;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

#[doc(inline)]
pub use self::backoff::backoff;
pub use self::builder::Builder;
pub use self::cache::{Phase, TokenCache, TokenStatus};
#[doc(inline)]
pub use self::credentials::ClientCredentials;
pub use self::error::{BoxError, ConfigError, Error, ErrorKind};
pub use self::layer::OfficeRndAuthLayer;
pub use self::message::{SkipAuth, TokenRejected};
pub use self::oauth::HttpTokenProvider;
#[doc(inline)]
pub use self::provider::{FetchContext, StaticToken, TokenProvider, provider_fn};
#[doc(inline)]
pub use self::rate_limit::RateLimit;
pub use self::retry::RetryUnauthorized;
pub use self::secret::Secret;
pub use self::service::OfficeRndAuth;
#[doc(inline)]
pub use self::settings::Settings;
#[cfg(shuttle)]
#[doc(hidden)]
pub use self::sync::{kill_flights, settle_flights};
pub use self::token::AccessToken;

pub mod middleware {
    //! The response future, and the traits of requests and responses.

    pub use crate::future::ResponseFuture;
    pub use crate::message::{AuthRequest, AuthResponse};
}
