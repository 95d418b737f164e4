//! The error of a store's setup, and errors in one line of a log.

use std::error::Error as StdError;
use std::fmt;

use officernd_auth::Error;

/// An error in the setup of a store, found before it is used.
///
/// It shows neither a password nor a URL.
///
/// ```
/// # #[cfg(feature = "redis")]
/// # {
/// use officernd_auth_store::RedisStore;
///
/// let error = RedisStore::new("http://app:hunter2@redis.internal").unwrap_err();
/// assert!(error.to_string().starts_with("the token store has a URL that cannot be used"));
/// assert!(!error.to_string().contains("hunter2"));
/// # }
/// ```
#[derive(Clone)]
pub struct ConfigError {
    problem: String,
}

impl ConfigError {
    #[cfg(any(feature = "file", feature = "redis"))]
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { problem }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token store {}", self.problem)
    }
}

/// Prints the same as [`Display`](fmt::Display), because a `main` that returns the error prints its `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for ConfigError {}

/// Returns the message of an error with its causes, in one line.
pub(crate) fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    // A chain of sources may be a cycle.
    for _ in 0..16 {
        let Some(source) = next else { break };
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
