//! Stand-ins for your own tests.
//!
//! [`Simulator`] is an OfficeRnD that runs inside your test: a real HTTP/1.1
//! server on loopback, with the token endpoint and its five requests a minute,
//! an API that refuses what OfficeRnD refuses, and faults to script. Point your
//! service's token URL and API address at it, or use the layer that it makes.
//!
//! ```
//! # #[cfg(feature = "reqwest")]
//! # mod example {
//! use bytes::Bytes;
//! use http::{Request, StatusCode};
//! use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use officernd_auth::BoxError;
//! use officernd_auth::testing::{Fault, Simulator};
//! use tower::{Layer as _, Service as _, ServiceExt as _};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # pub(super) async fn main() -> Result<(), BoxError> {
//! let officernd = Simulator::start().await?;
//! let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
//! let mut client = officernd.layer()?.layer(http);
//!
//! let url = format!(
//!     "{}/api/v2/organizations/{}/locations",
//!     officernd.url(),
//!     officernd.org_slug(),
//! );
//! let request = || Request::get(&url).body(Empty::new());
//! let response = client.ready().await?.call(request()?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//!
//! // A bad minute at OfficeRnD.
//! officernd.api_faults().next(1, Fault::Status(503));
//! let response = client.ready().await?.call(request()?).await?;
//! assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
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
//! # Time
//!
//! The simulator reads tokio's clock, so a test can let a token age, or a rate
//! window pass, without waiting: `tokio::time::pause()`, `advance(life).await`,
//! `resume()`. Don't *leave* the clock paused around requests: while every task
//! waits for a socket, a paused clock jumps to the next timer, and that is your
//! client's timeout.

mod conformance;
mod manual_clock;
mod memory_store;
mod scripted;
mod simulator;

pub use self::conformance::check_store;
pub use self::manual_clock::ManualClock;
pub use self::memory_store::MemoryStore;
pub use self::scripted::{ScriptedProvider, Step};
pub use self::simulator::{Fault, Faults, RecordedRequest, Simulator, SimulatorBuilder};
