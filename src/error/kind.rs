//! The kinds of failure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of failure of an [`Error`](crate::Error).
///
/// ```
/// use officernd_auth::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::InvalidScope, "no such scope");
/// assert_eq!(error.kind(), ErrorKind::InvalidScope);
/// assert!(!error.is_transient());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client id or secret is wrong (RFC 6749 section 5.2 `invalid_client`).
    InvalidClient,
    /// A scope is unknown or not granted to the app (`invalid_scope`).
    InvalidScope,
    /// The server refused for another permanent reason (`unauthorized_client`,
    /// `invalid_grant`, `invalid_request`, other 4xx, a bare 403).
    Denied,
    /// The server answered 429, or the [`RateLimit`](crate::RateLimit) is used up.
    RateLimited,
    /// A time limit ended first.
    Timeout,
    /// No complete response arrived: connect, TLS, reset, 5xx, 408.
    Transport,
    /// The response is not a valid token response (RFC 6749 section 5.1).
    Malformed,
    /// The request goes to an origin that may not see the token.
    ForeignOrigin,
    /// The request would carry the token over plain http.
    InsecureOrigin,
    /// The request names no organization, or one without credentials
    /// ([`organizations`](crate::organizations) only).
    Organization,
    /// The shared token store failed.
    Store,
    /// No tokio runtime to fetch a token on. In one without timers (`enable_time`) tokio panics in
    /// the caller's task.
    Runtime,
}

impl ErrorKind {
    /// Returns `true` if the same call may succeed later without any change.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Timeout | Self::Transport | Self::Malformed | Self::Store
        )
    }

    /// Returns the stable name, as in logs, metrics and [`TokenStatus`](crate::TokenStatus).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidClient => "invalid_client",
            Self::InvalidScope => "invalid_scope",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Malformed => "malformed",
            Self::ForeignOrigin => "foreign_origin",
            Self::InsecureOrigin => "insecure_origin",
            Self::Organization => "organization",
            Self::Store => "store",
            Self::Runtime => "runtime",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
