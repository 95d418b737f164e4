//! The one error of a running layer, and the one of its set-up.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// What any tower service may fail with: [`tower::BoxError`].
pub type BoxError = tower::BoxError;

/// Why a request got no token.
///
/// Cheap to clone: every request that waited for one token fetch receives the
/// same error. It never holds a token, a secret, or what a server wrote in a
/// body. Below a tower stack it travels inside a [`BoxError`]; [`Error::find`]
/// gets it back.
///
/// ```
/// use officernd_auth::{Error, ErrorKind};
/// use std::time::Duration;
///
/// let error = Error::new(ErrorKind::RateLimited, "the token endpoint is busy")
///     .with_retry_after(Duration::from_secs(20));
/// assert!(error.is_transient());
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
}

/// What kind of failure an [`Error`] is.
///
/// ```
/// use officernd_auth::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::InvalidScope, "no such scope");
/// assert_eq!(error.kind(), ErrorKind::InvalidScope);
/// assert!(!error.is_transient());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client id or secret is wrong (RFC 6749 §5.2 `invalid_client`).
    InvalidClient,
    /// A scope is unknown or not granted to the app (`invalid_scope`).
    InvalidScope,
    /// The server refused for another lasting reason (`unauthorized_client`,
    /// `invalid_grant`, `invalid_request`, other 4xx, a bare 403).
    Denied,
    /// The server answered 429, or the [`Allowance`](crate::Allowance) is spent.
    RateLimited,
    /// A time bound ended first.
    Timeout,
    /// No whole answer arrived: connect, TLS, reset, 5xx, 408.
    Transport,
    /// An answer arrived that is not a token answer (RFC 6749 §5.1).
    Malformed,
    /// The request goes to an origin that may not see the token.
    ForeignOrigin,
    /// The request would carry the token over plain http.
    InsecureOrigin,
    /// The request names no organisation, or one without credentials
    /// (`per_organization` only).
    Organization,
    /// The shared token store failed.
    Store,
    /// No tokio runtime, or one without timers, to fetch a token on.
    Runtime,
}

impl ErrorKind {
    /// Whether the same call may succeed later with nothing changed by anyone.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Timeout | Self::Transport | Self::Malformed | Self::Store
        )
    }

    /// The kind's stable name, as in logs, metrics and [`TokenStatus`](crate::TokenStatus).
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

impl Error {
    /// An error of this kind. The message goes to logs: no secrets in it.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                retry_after: None,
                source: None,
                not_attempted: false,
            }),
        }
    }

    /// Adds when the server (or the allowance) will answer again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.inner_mut().retry_after = Some(after);
        self
    }

    /// Adds what caused it. The source's `Display` goes to logs.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner_mut().source = Some(Arc::from(source.into()));
        self
    }

    /// Marks that no token request was sent: it does not count as a failure of
    /// the token endpoint.
    pub(crate) fn not_attempted(mut self) -> Self {
        self.inner_mut().not_attempted = true;
        self
    }

    pub(crate) fn is_not_attempted(&self) -> bool {
        self.inner.not_attempted
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// How long to leave the token endpoint alone, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Whether the same call may succeed later with nothing changed by anyone.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// Finds this crate's error in what a tower stack returned: the error
    /// itself, one of its sources, or what an [`io::Error`] wraps.
    #[must_use]
    pub fn find(error: &BoxError) -> Option<&Self> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
        // A chain that loops is not ours to follow for ever.
        for _ in 0..64 {
            let error = next?;
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // `io::Error::source` skips the error that it wraps.
            let wrapped = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match wrapped {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        None
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

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("retry_after", &self.inner.retry_after)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// A mistake in the set-up, found before the first request.
///
/// ```
/// use officernd_auth::{ClientCredentials, ConfigError, HttpTokenProvider};
/// # fn main() {
/// # #[cfg(feature = "reqwest")] {
/// let credentials = ClientCredentials::new("client", "").scope("officernd.api.read");
/// let error = HttpTokenProvider::new(credentials).unwrap_err();
/// assert!(matches!(error, ConfigError::Credential { .. }));
/// # }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is not set.
    #[non_exhaustive]
    MissingVariable {
        /// Its name, or the names of which one is needed.
        name: &'static str,
    },
    /// Two environment variables say different things of one setting.
    #[non_exhaustive]
    ConflictingVariables {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// An environment variable holds what cannot be used.
    #[non_exhaustive]
    InvalidVariable {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The client id or the client secret cannot be used.
    #[non_exhaustive]
    Credential {
        /// `client_id` or `client_secret`.
        field: &'static str,
        /// What is wrong with it; never its value.
        problem: &'static str,
    },
    /// The file of the client id or the client secret cannot be used.
    #[non_exhaustive]
    CredentialFile {
        /// `client_id` or `client_secret`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A scope has characters that RFC 6749 §3.3 does not allow.
    #[non_exhaustive]
    Scope {
        /// What is wrong with it.
        problem: String,
    },
    /// A form parameter cannot be sent.
    #[non_exhaustive]
    FormParam {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The token URL cannot be used.
    #[non_exhaustive]
    TokenUrl {
        /// What is wrong with it.
        problem: String,
    },
    /// An allowed origin is not `scheme://host[:port]`.
    #[non_exhaustive]
    Origin {
        /// What is wrong with it.
        problem: String,
    },
    /// A duration, number or limit is out of its range.
    #[non_exhaustive]
    Setting {
        /// Its name, as in the builder.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A token store cannot be used as it is set up.
    #[non_exhaustive]
    Store {
        /// What is wrong with it; never a password.
        problem: String,
    },
    /// The HTTP client of the token endpoint could not be built.
    #[non_exhaustive]
    Client {
        /// What it said.
        problem: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingVariable { name } => {
                write!(f, "the environment variable {name} is not set")
            }
            Self::ConflictingVariables { first, second } => write!(
                f,
                "the environment variables {first} and {second} are both set and disagree; keep one"
            ),
            Self::InvalidVariable { name, problem } => {
                write!(f, "the environment variable {name} {problem}")
            }
            Self::Credential { field, problem } => write!(f, "{field} {problem}"),
            Self::CredentialFile {
                field,
                path,
                problem,
            } => write!(f, "the {field} file {} {problem}", path.display()),
            Self::Scope { problem } => write!(f, "scope {problem}"),
            Self::FormParam { name, problem } => write!(f, "form parameter {name:?} {problem}"),
            Self::TokenUrl { problem } => write!(f, "the token URL {problem}"),
            Self::Origin { problem } => write!(f, "allowed origin {problem}"),
            Self::Setting { name, problem } => write!(f, "{name} {problem}"),
            Self::Store { problem } => write!(f, "the token store {problem}"),
            Self::Client { problem } => {
                write!(f, "the HTTP client of the token endpoint: {problem}")
            }
        }
    }
}

impl StdError for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_found_inside_an_io_error_inside_another_error() {
        let ours = Error::new(ErrorKind::Timeout, "late");
        let io = io::Error::other(ours);
        let outer: BoxError = Box::new(Error::new(ErrorKind::Store, "outer").with_source(io));
        // The outer one is ours too, and nearer.
        assert_eq!(Error::find(&outer).map(Error::kind), Some(ErrorKind::Store));

        let io: BoxError = Box::new(io::Error::other(io::Error::other(Error::new(
            ErrorKind::Timeout,
            "late",
        ))));
        assert_eq!(Error::find(&io).map(Error::kind), Some(ErrorKind::Timeout));
    }

    #[test]
    fn a_foreign_error_holds_none_of_ours() {
        let foreign: BoxError = "broken pipe".into();
        assert!(Error::find(&foreign).is_none());
    }
}
