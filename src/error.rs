//! The error of a request, and the error of a setup.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::iter::successors;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// tower's boxed error, [`tower::BoxError`]: the error type of the service.
pub type BoxError = tower::BoxError;

/// The error of a request that could not get a token.
///
/// Cheap to clone: all requests that waited for one token fetch get the same error. It never holds
/// a token, a secret or a server's response body. A tower stack returns it inside a [`BoxError`];
/// [`Error::find`] finds it there.
///
/// ```
/// use officernd_auth::{Error, ErrorKind};
/// use std::time::Duration;
///
/// let error = Error::new(ErrorKind::RateLimited, "the token endpoint is busy")
///     .with_retry_after(Duration::from_millis(1_200));
/// assert!(error.is_transient());
/// assert_eq!(error.retry_after_seconds(), Some(2));
///
/// let boxed: tower::BoxError = error.into();
/// let found = Error::find(&boxed).map(Error::kind);
/// assert_eq!(found, Some(ErrorKind::RateLimited));
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    not_attempted: bool,
    unsent: bool,
    max_backoff: Option<Duration>,
}

impl Error {
    /// Creates an error of this kind. The message goes to logs, so it must not contain a secret.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                retry_after: None,
                source: None,
                not_attempted: false,
                unsent: false,
                max_backoff: None,
            }),
        }
    }

    /// Sets the time until the server or the rate limit accepts the next token request.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.inner_mut().retry_after = Some(after);
        self
    }

    /// Sets the cause. Its `Display` goes to logs, so it must not contain a secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner_mut().source = Some(Arc::from(source.into()));
        self
    }

    /// Marks that no token request was sent, so that the error is not counted as a failure of the
    /// token endpoint. The next background fetch starts after [`retry_after`](Self::retry_after). A
    /// request may start one earlier if this fetch was in the background.
    #[must_use]
    pub fn not_attempted(mut self) -> Self {
        self.inner_mut().not_attempted = true;
        self
    }

    /// Returns `true` if no token request was sent.
    #[must_use]
    pub fn is_not_attempted(&self) -> bool {
        self.inner.not_attempted
    }

    /// Marks whether no connection was made: the token request then does not count towards the
    /// rate limit.
    pub(crate) fn mark_unsent(mut self, unsent: bool) -> Self {
        self.inner_mut().unsent = unsent;
        self
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.inner.unsent
    }

    /// Sets the longest backoff after this error, for a cause that may be removed at any time, such
    /// as a wrong secret in a file.
    #[must_use]
    pub fn with_max_backoff(mut self, longest: Duration) -> Self {
        self.inner_mut().max_backoff = Some(longest);
        self
    }

    pub(crate) fn max_backoff(&self) -> Option<Duration> {
        self.inner.max_backoff
    }

    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns how long to wait before the next attempt, if known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Returns [`retry_after`](Self::retry_after) in whole seconds, rounded up, for a `Retry-After`
    /// header (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.inner.retry_after?;
        Some(after.as_secs() + u64::from(after.subsec_nanos() > 0))
    }

    /// Returns `true` if the same call may succeed later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.inner.kind.is_transient()
    }

    /// Finds this crate's error in what a tower stack returned: the error itself, one of its
    /// sources, or the error inside an [`io::Error`].
    #[must_use]
    pub fn find(error: &BoxError) -> Option<&Self> {
        Self::find_in(error.as_ref())
    }

    /// Finds this crate's error in any error, such as anyhow's, eyre's or reqwest-middleware's.
    #[must_use]
    pub fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        chain(error).find_map(|error| error.downcast_ref())
    }

    fn inner_mut(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.inner)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match self.inner.retry_after {
            Some(after) => write!(f, " (retry after {} s)", after.as_secs_f64().ceil()),
            None => Ok(()),
        }
    }
}

/// Prints the message, the kind and the causes, because a `main` that returns the error prints its
/// `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [{}]", self.inner.kind)?;
        write_causes(f, self)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// The kind of an [`Error`]. [guide::troubleshooting](crate::guide::troubleshooting) has causes and fixes.
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
    /// The server refused the token request for another permanent reason (`unauthorized_client`,
    /// `invalid_grant`, `invalid_request`, another 4xx).
    Denied,
    /// The server answered 429, or the [`RateLimit`](crate::RateLimit) is used up.
    RateLimited,
    /// No token arrived within a time limit.
    Timeout,
    /// No complete response arrived: DNS, connection, TLS, reset, 5xx, 408.
    Transport,
    /// The response is not a valid token response (RFC 6749 section 5.1).
    Malformed,
    /// The request goes to an origin that is not allowed to receive the token.
    ForeignOrigin,
    /// The request would send the token over plain http.
    InsecureOrigin,
    /// The request has no organization, or one without credentials
    /// ([`organizations`](crate::organizations) only).
    Organization,
    /// The shared token store failed.
    Store,
    /// There is no tokio runtime to fetch a token on, or the task of the fetch ended without a result. In a runtime without timers (`enable_time`)
    /// tokio panics in the caller's task.
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

/// An error in the configuration. It never shows a secret.
///
/// ```
/// use officernd_auth::{ConfigError, OfficeRndAuthLayer, StaticToken};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = OfficeRndAuthLayer::builder(StaticToken::new("abc")?);
/// let error = builder.jitter(7.0).build().unwrap_err();
/// assert!(matches!(error, ConfigError::Setting { name: "jitter", .. }));
/// assert_eq!(error.to_string(), "jitter is not between 0.0 and 1.0");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is missing, invalid, or contradicts another.
    #[non_exhaustive]
    Setting {
        /// The name of the setting or of its environment variable.
        name: &'static str,
        /// Why the setting was rejected.
        problem: String,
    },
    /// The file of a client id or a client secret cannot be used.
    #[non_exhaustive]
    File {
        /// `client_id` or `client_secret`.
        name: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// Why the file was rejected.
        problem: String,
    },
    /// The HTTP client of the token endpoint could not be built.
    #[non_exhaustive]
    Client {
        /// What the client reported.
        problem: String,
    },
}

impl ConfigError {
    pub(crate) fn setting(name: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Setting { name, problem }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, problem } => write!(f, "{name} {problem}"),
            Self::File {
                name,
                path,
                problem,
            } => write!(f, "the {name} file {} {problem}", path.display()),
            Self::Client { problem } => {
                write!(f, "the HTTP client of the token endpoint: {problem}")
            }
        }
    }
}

impl StdError for ConfigError {}

/// Prints the message, because a `main` that returns the error prints its `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns an error and its causes, of which there are at most 64: they may be a cycle.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    // `io::Error::source` skips the error that it wraps.
    let next = |&error: &&'a (dyn StdError + 'static)| -> Option<&'a (dyn StdError + 'static)> {
        match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    };
    successors(Some(error), next).take(64)
}

/// Prints an error and its causes on one line.
pub(crate) struct WithCauses<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        write_causes(f, self.0)
    }
}

fn write_causes(f: &mut fmt::Formatter<'_>, error: &(dyn StdError + 'static)) -> fmt::Result {
    // An `io::Error` prints the error that it wraps: `chain` would print it twice.
    let causes = successors(error.source(), |&cause| cause.source());
    // The causes may be a cycle.
    causes.take(16).try_for_each(|cause| write!(f, ": {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_error_of_this_crate_is_found_even_inside_io_errors() {
        let find = |error: BoxError| Error::find(&error).map(Error::kind);
        let late = || io::Error::other(Error::new(ErrorKind::Timeout, "late"));
        let outer = Error::new(ErrorKind::Store, "outer").with_source(late());
        assert_eq!(find(outer.into()), Some(ErrorKind::Store));
        let nested = io::Error::other(late());
        assert_eq!(find(nested.into()), Some(ErrorKind::Timeout));
        assert_eq!(find("broken pipe".into()), None);
    }

    #[test]
    fn main_prints_the_message_and_its_causes() {
        let io = io::Error::other("connection refused");
        let error = Error::new(ErrorKind::Transport, "the token request failed")
            .with_retry_after(Duration::from_millis(100))
            .with_source(io);
        assert_eq!(
            format!("{error:?}"),
            "the token request failed (retry after 1 s) [transport]: connection refused"
        );
        let missing = ConfigError::setting("X", "is not set");
        assert_eq!(format!("{missing:?}"), missing.to_string());
    }
}
