//! Mistakes in the set-up.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

/// An error in the configuration, found before the first request.
///
/// ```
/// use officernd_auth::{ClientCredentials, ConfigError, HttpTokenProvider};
/// # fn main() {
/// # #[cfg(feature = "reqwest")] {
/// let credentials = ClientCredentials::new("client", "").scope("flex.community.members.read");
/// let error = HttpTokenProvider::new(credentials).unwrap_err();
/// assert!(matches!(error, ConfigError::Credential { .. }));
/// # }
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is not set.
    #[non_exhaustive]
    MissingVariable {
        /// Its name, or the names of which one is needed.
        name: &'static str,
    },
    /// Two environment variables contradict each other.
    #[non_exhaustive]
    ConflictingVariables {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// The value of an environment variable cannot be used.
    #[non_exhaustive]
    InvalidVariable {
        /// Its name.
        name: &'static str,
        /// The problem with it.
        problem: String,
    },
    /// The client id or the client secret cannot be used.
    #[non_exhaustive]
    Credential {
        /// `client_id` or `client_secret`.
        field: &'static str,
        /// The problem with it; never its value.
        problem: &'static str,
    },
    /// The file of the client id or the client secret cannot be used.
    #[non_exhaustive]
    CredentialFile {
        /// `client_id` or `client_secret`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// The problem with it.
        problem: String,
    },
    /// A scope has characters that RFC 6749 section 3.3 does not allow.
    #[non_exhaustive]
    Scope {
        /// The problem with it.
        problem: String,
    },
    /// A form parameter cannot be sent.
    #[non_exhaustive]
    FormParam {
        /// Its name.
        name: String,
        /// The problem with it.
        problem: &'static str,
    },
    /// The token URL cannot be used.
    #[non_exhaustive]
    TokenUrl {
        /// The problem with it.
        problem: String,
    },
    /// An allowed origin is not `scheme://host[:port]`.
    #[non_exhaustive]
    Origin {
        /// The problem with it.
        problem: String,
    },
    /// A duration, number or limit is out of its range.
    #[non_exhaustive]
    Setting {
        /// Its name, as in the builder.
        name: &'static str,
        /// The problem with it.
        problem: String,
    },
    /// A token store cannot be used as it is set up.
    #[non_exhaustive]
    Store {
        /// The problem with it; never a password.
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

/// As [`Display`](fmt::Display): this is what a `main` prints that returns the
/// error.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
