//! Errors of the setup.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

/// An error in the configuration, found before the first request.
///
/// It never shows a secret.
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

/// Prints the same as [`Display`](fmt::Display), because a `main` that returns the error prints
/// its `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
