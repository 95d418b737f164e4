//! A scripted provider and a manual clock for tests.
//!
//! The crate [`officernd-simulator`] is an OfficeRnD on loopback: a token endpoint with five requests a minute, an API
//! that checks tokens, and faults to script. Add it as a dev-dependency to test a whole service:
//!
//! ```
//! # #[cfg(feature = "reqwest")]
//! # mod example {
//! use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
//! use officernd_simulator::{Fault, Simulator};
//! use reqwest::{Client, Method, Request};
//! use tower::{Layer as _, ServiceExt as _};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # pub(super) async fn main() -> Result<(), BoxError> {
//! let officernd = Simulator::builder().org_slug("acme").start().await?;
//! let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
//!     .scope(officernd.scope())
//!     .token_url(officernd.token_url());
//! let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
//!     .allow_origin(officernd.url())
//!     .build()?;
//! let client = layer.layer(Client::new());
//!
//! let url = format!("{}/api/v2/organizations/acme/locations", officernd.url()).parse()?;
//! let request = || Request::new(Method::GET, reqwest::Url::clone(&url));
//! assert_eq!(client.clone().oneshot(request()).await?.status(), 200);
//!
//! officernd.api_faults().next(1, Fault::Status(503));
//! assert_eq!(client.clone().oneshot(request()).await?.status(), 503);
//!
//! // Both requests carried the same token.
//! assert_eq!(officernd.token_requests(), 1);
//! # Ok(())
//! # }
//! # }
//! # #[cfg(feature = "reqwest")]
//! # fn main() { example::main().unwrap() }
//! # #[cfg(not(feature = "reqwest"))]
//! # fn main() {}
//! ```
//!
//! [`officernd-simulator`]: https://docs.rs/officernd-simulator

mod manual_clock;
mod scripted;

pub use self::manual_clock::ManualClock;
pub use self::scripted::{ScriptedProvider, Step};
