use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, StatusCode, Uri, request};

/// As many requests are remembered.
const MAX_LOG: usize = 10_000;

/// A request that came to a [`Simulator`](super::Simulator).
///
/// Its `Debug` shows neither headers nor body nor query: they hold secrets.
///
/// ```
/// use officernd_auth::testing::Simulator;
/// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let officernd = Simulator::start().await?;
/// # let mut stream = tokio::net::TcpStream::connect(officernd.addr()).await?;
/// // ... your service sends `GET /api/v2/organizations/acme/members` without a token ...
/// # stream.write_all(b"GET /api/v2/organizations/acme/members HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
/// # stream.read_to_end(&mut Vec::new()).await?;
/// for request in officernd.requests() {
///     assert_eq!(request.method(), "GET");
///     assert_eq!(request.path(), "/api/v2/organizations/acme/members");
///     assert_eq!(request.authorization(), None);
///     assert_eq!(request.status(), Some(401));
/// }
/// # assert_eq!(officernd.requests().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RecordedRequest {
    at: Duration,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    status: Option<StatusCode>,
}

impl RecordedRequest {
    pub(super) fn new(at: Duration, parts: &request::Parts) -> Self {
        let mut headers = parts.headers.clone();
        for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        Self {
            at,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers,
            body: Bytes::new(),
            status: None,
        }
    }

    /// When it arrived, from the start of the simulator.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Its path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Its query, if it had one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its `Authorization`, if it had one and it was text.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()
    }

    /// Its body, if it came to the token endpoint; of others nothing is kept.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The status of its answer; `None` while, or if, there was none.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status.map(|status| status.as_u16())
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRequest")
            .field("at", &self.at)
            .field("method", &self.method)
            .field("path", &self.path())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Which rules a request falls under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Token,
    Api,
    Other,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/oauth/token" => Self::Token,
            path if path.starts_with("/api/") => Self::Api,
            _ => Self::Other,
        }
    }
}

/// The requests that arrived, and how they were answered.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) log: VecDeque<RecordedRequest>,
    /// Requests that the log has dropped: the number of its first entry.
    dropped: u64,
    /// Apart from the log, so that a busy API doesn't push them out.
    token_arrivals: VecDeque<Duration>,
    in_flight: usize,
    pub(super) max_in_flight: usize,
    pub(super) api_requests: u64,
    pub(super) api_unauthorized: u64,
}

impl Journal {
    /// Notes an arrival; answers its number.
    pub(super) fn arrived(&mut self, endpoint: Endpoint, request: RecordedRequest) -> u64 {
        match endpoint {
            Endpoint::Token => {
                self.in_flight += 1;
                self.max_in_flight = self.max_in_flight.max(self.in_flight);
                self.token_arrivals.push_back(request.at);
                if self.token_arrivals.len() > MAX_LOG {
                    self.token_arrivals.pop_front();
                }
            }
            Endpoint::Api => self.api_requests += 1,
            Endpoint::Other => {}
        }
        self.log.push_back(request);
        if self.log.len() > MAX_LOG {
            self.log.pop_front();
            self.dropped += 1;
        }
        self.dropped + self.log.len() as u64 - 1
    }

    pub(super) fn has_body(&mut self, number: u64, body: Bytes) {
        if let Some(request) = self.entry(number) {
            request.body = body;
        }
    }

    pub(super) fn answered(&mut self, number: u64, endpoint: Endpoint, status: StatusCode) {
        if endpoint == Endpoint::Api && status == StatusCode::UNAUTHORIZED {
            self.api_unauthorized += 1;
        }
        if let Some(request) = self.entry(number) {
            request.status = Some(status);
        }
    }

    /// Notes that a request is over, answered or not.
    pub(super) fn ended(&mut self, endpoint: Endpoint) {
        if endpoint == Endpoint::Token {
            self.in_flight -= 1;
        }
    }

    pub(super) fn max_token_requests_in(&self, window: Duration) -> usize {
        let mut stretch = VecDeque::new();
        let mut most = 0;
        for arrival in &self.token_arrivals {
            stretch.push_back(*arrival);
            while stretch
                .front()
                .is_some_and(|first| arrival.saturating_sub(*first) >= window)
            {
                stretch.pop_front();
            }
            most = most.max(stretch.len());
        }
        most
    }

    /// `None` once the log has dropped it.
    fn entry(&mut self, number: u64) -> Option<&mut RecordedRequest> {
        let index = usize::try_from(number.checked_sub(self.dropped)?).ok()?;
        self.log.get_mut(index)
    }
}
