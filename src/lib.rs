//! Tower middleware that keeps an [OfficeRnD] OAuth 2.0 token ready and puts it on every request.
//!
//! OfficeRnD's token endpoint takes five requests a minute, failed ones included, and a token is valid for an hour. This
//! crate fetches one token, refreshes it in the background before it expires, and never sends two token requests at once.
//! A request that finds a token takes no lock and, for `http::Request`, allocates nothing.
//!
//! # Start here
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
//! [`OfficeRndAuthLayer::from_env`] reads `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET`, `OFFICERND_SCOPES` and, if
//! they are set, the variables of all other [`Settings`].
//! [`OfficeRndAuthLayer::builder`] changes settings. The [cookbook] has whole programs for hyper, axum,
//! reqwest-middleware, reqwest 0.12, tests, settings in TOML and more.
//!
//! # Three parts
//!
//! - A [`TokenProvider`] fetches a token: [`HttpTokenProvider`] from OfficeRnD, [`provider_fn`] from your own function.
//! - A [`TokenCache`] keeps one token ready. It decides when to fetch, shares one fetch among all waiting requests, backs
//!   off after failures, and answers [`status`](TokenCache::status) for probes.
//! - [`OfficeRndAuthLayer`] wraps any tower service of `http::Request` or `reqwest::Request` (reqwest 0.13). Its service
//!   [`OfficeRndAuth`] adds the `Authorization` header, to allowed origins only.
//!
//! # Where to go next
//!
//! | task | see |
//! |---|---|
//! | change when tokens are refreshed, which hosts get them, how long requests wait | [`Builder`] |
//! | replay a request after a 401 | [`OfficeRndAuthLayer::with_retry`], [`RetryUnauthorized`] |
//! | stack retry, timeout, redirects, tracing and limits in the right order | [guide::composition] |
//! | serve several organizations through one client | [`OrganizationsLayer`](organizations::OrganizationsLayer) |
//! | share one token between pods or processes | the crate [`officernd-auth-store`](https://docs.rs/officernd-auth-store) |
//! | read settings from a file | [`Settings`] |
//! | rotate a client secret that lies in a file | [`ClientCredentials`] |
//! | answer a readiness probe | [`TokenStatus`], [`TokenCache::warm_up`], [`Builder::keep_warm`] |
//! | watch it: spans, events, metrics | [`observability`], [guide::observability] |
//! | test your service without OfficeRnD | [`testing`] |
//! | see what a broken token endpoint can and cannot do | [guide::faults] |
//! | use a token outside tower | [`TokenCache::token`], [`AccessToken`] |
//!
//! # What a request meets
//!
//! | situation | what happens |
//! |---|---|
//! | the token is fresh | the request is sent with it at once |
//! | the token nears its expiry | the request is sent with it; a fetch starts in the background |
//! | the token endpoint fails | the old token serves until 10 s before its expiry; then requests fail with an [`Error`] |
//! | 10,000 requests find no token | one token request; all of them wait for it |
//! | a caller goes away | the fetch goes on and serves the next caller |
//! | the API answers 401 | the token is replaced in the background, if no newer one is there already |
//! | tokens die before their `expires_in` is over, but not within 5 min | each is replaced at its first 401; with [`with_retry`](OfficeRndAuthLayer::with_retry) no request fails |
//! | every token is answered 401, as when a scope is missing | replacements slow down, to one each 10 min |
//! | a request goes to a host other than `app.officernd.com` and `hybrid.officernd.com` | it fails with [`ErrorKind::ForeignOrigin`], unless [`allow_origin`](Builder::allow_origin) lists the host |
//!
//! # Errors
//!
//! The service's error is [`BoxError`], as tower's own. [`Error::find`] gets this crate's [`Error`] out of it:
//! [`kind`](Error::kind) says what failed, [`retry_after`](Error::retry_after) when a token may be available again, and
//! [`is_transient`](Error::is_transient) whether waiting can help. A request without its token is never sent. Set-up
//! errors are [`ConfigError`]s, from constructors and `build`. No error holds a secret or a server's response body.
//!
//! # Servers only
//!
//! OfficeRnD's token endpoint does not answer CORS preflights, so browsers cannot call it. A web page would also expose
//! the client secret. Let the page call your server.
//!
//! # Features
//!
//! | feature | default | brings | crates |
//! |---|---|---|--:|
//! | none | | the layer, the cache, [`HttpTokenProvider`] over any tower HTTP service | 42 |
//! | `reqwest` | yes | the layer over `reqwest::Client`, and the ready-made client of [`HttpTokenProvider::new`] | 83 |
//! | `rustls` | yes | TLS for both, by rustls with aws-lc-rs | 95 |
//! | `rustls-no-provider` | no | TLS by rustls with the cryptography provider that your program installs | 93 |
//! | `native-tls` | no | TLS by the operating system, OpenSSL on Linux | 95 |
//! | `reqwest-middleware` | no | the layer as a middleware of reqwest-middleware's client | 88 |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade | 44 |
//! | `testing` | no | [`ScriptedProvider`](testing::ScriptedProvider) and [`ManualClock`](testing::ManualClock) for unit tests | 42 |
//!
//! For tests over HTTP, the crate [`officernd-simulator`](https://docs.rs/officernd-simulator) is an OfficeRnD on
//! loopback: token endpoint, rate limit, API and faults.
//!
//! `reqwest` without one of the three TLS features speaks plain http only. Features only add. The library spawns tasks
//! on the tokio runtime of its caller and has no permanent task, unless [`keep_warm`](Builder::keep_warm) is on or
//! several [`organizations`] are in use. It needs Rust 1.85 and has no `unsafe` code.
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
