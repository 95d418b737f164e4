//! Stand-ins for your own tests.
//!
//! [`Simulator`] is an OfficeRnD that runs inside your test: a real HTTP/1.1
//! server on loopback, with the token endpoint and its five requests a minute,
//! an API that refuses what OfficeRnD refuses, and faults to script. Point your
//! service's token URL and API address at it, and ask it afterwards what it saw.
//!
//! ```
//! use http::{Request, StatusCode, header::AUTHORIZATION};
//! use officernd_auth::testing::{Fault, Simulator};
//! # use http_body_util::{BodyExt, Full};
//! # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! # type BoxError = Box<dyn std::error::Error + Send + Sync>;
//! # async fn send(request: http::Result<Request<String>>) -> Result<(StatusCode, String), BoxError> {
//! #     let client = Client::builder(TokioExecutor::new()).build_http();
//! #     let answer = client.request(request?.map(Full::<bytes::Bytes>::from)).await?;
//! #     let (status, body) = (answer.status(), answer.into_body().collect().await?.to_bytes());
//! #     Ok((status, String::from_utf8(body.to_vec())?))
//! # }
//!
//! /// The service under test: it reads an organisation's locations.
//! async fn locations(officernd: &Simulator) -> Result<StatusCode, BoxError> {
//!     let form = form_urlencoded::Serializer::new(String::new())
//!         .append_pair("client_id", &officernd.client_id())
//!         .append_pair("client_secret", &officernd.client_secret())
//!         .append_pair("grant_type", "client_credentials")
//!         .append_pair("scope", &officernd.scope())
//!         .finish();
//!     let request = Request::post(officernd.token_url())
//!         .header("content-type", "application/x-www-form-urlencoded")
//!         .body(form);
//!     let (status, body) = send(request).await?;
//!     if status != StatusCode::OK {
//!         return Ok(status);
//!     }
//!     let answer: serde_json::Value = serde_json::from_str(&body)?;
//!     let token = answer["access_token"].as_str().unwrap_or_default();
//!
//!     let url = format!(
//!         "{}/api/v2/organizations/{}/locations",
//!         officernd.url(),
//!         officernd.org_slug(),
//!     );
//!     let request = Request::get(url).header(AUTHORIZATION, format!("Bearer {token}"));
//!     Ok(send(request.body(String::new())).await?.0)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let officernd = Simulator::start().await?;
//! assert_eq!(locations(&officernd).await?, StatusCode::OK);
//!
//! // A bad minute at OfficeRnD.
//! officernd.token_faults().next(1, Fault::Status(503));
//! assert_eq!(locations(&officernd).await?, StatusCode::SERVICE_UNAVAILABLE);
//!
//! // This service asks for a token each time, and the fifth was its last.
//! for _ in 0..4 {
//!     locations(&officernd).await?;
//! }
//! assert_eq!(locations(&officernd).await?, StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(officernd.token_requests(), 7);
//! assert_eq!(officernd.tokens_issued(), 4);
//! # Ok(())
//! # }
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

pub use self::conformance::{Violation, check_store};
pub use self::manual_clock::ManualClock;
pub use self::memory_store::MemoryStore;
pub use self::scripted::{ScriptedProvider, Step};
pub use self::simulator::{Fault, Faults, RecordedRequest, Simulator, SimulatorBuilder};
