use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};

/// A request that a [`Simulator`](crate::Simulator) received.
///
/// `Debug` leaves out headers, body and query: a misconfigured program sends real credentials.
///
/// ```
/// use officernd_simulator::Simulator;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let officernd = Simulator::start().await?;
/// reqwest::get(format!("{}/api/v2/organizations/acme/members", officernd.url())).await?;
///
/// let request = &officernd.requests()[0];
/// assert_eq!(request.method, "GET");
/// assert_eq!(request.uri, "/api/v2/organizations/acme/members");
/// assert_eq!(request.authorization(), None);
/// assert_eq!(request.status, Some(401));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// When the request arrived, counted from the start of the simulator.
    pub at: Duration,
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body of a token request. Other bodies are not kept.
    pub body: Bytes,
    /// The status of the response; `None` if there was none, or not yet.
    pub status: Option<u16>,
}

impl RecordedRequest {
    /// Returns the `Authorization` header, if it is visible ASCII.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRequest")
            .field("at", &self.at)
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
