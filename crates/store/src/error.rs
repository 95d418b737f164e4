//! The error of a store's setup.

use std::fmt;

/// An error in the setup of a store, returned before the store is used.
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

impl std::error::Error for ConfigError {}
