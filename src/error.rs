//! The error of a running layer, and that of its setup.

mod config;
mod kind;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use self::config::ConfigError;
pub use self::kind::ErrorKind;

/// tower's boxed error, [`tower::BoxError`]: the error type of the service.
pub type BoxError = tower::BoxError;

/// The error of a request that could not get a token.
///
/// Cheap to clone: all requests that waited for one token fetch get the same error. It never holds
/// a token, a secret or a server's response body. A tower stack returns it inside a [`BoxError`];
/// [`Error::find`] gets it back.
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
    unsent: bool,
    max_backoff: Option<Duration>,
}

impl Error {
    /// Makes an error of this kind. The message goes to logs: no secrets in it.
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

    /// Sets the cause. Its `Display` goes to logs.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner_mut().source = Some(Arc::from(source.into()));
        self
    }

    /// Marks that no token request was sent, so that the error is not counted as a failure of the
    /// token endpoint. The next background fetch starts after [`retry_after`](Self::retry_after). A
    /// request may start one earlier if this fetch was in the background.
    ///
    /// ```
    /// use officernd_auth::{Error, ErrorKind};
    /// use std::time::Duration;
    ///
    /// let held = Error::new(ErrorKind::Store, "another process's request has failed")
    ///     .not_attempted()
    ///     .with_retry_after(Duration::from_secs(4));
    /// assert!(held.is_not_attempted());
    /// ```
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

    /// Marks whether the connection for the token request was never made: the request takes no
    /// place of the rate limit.
    pub(crate) fn mark_unsent(mut self, unsent: bool) -> Self {
        self.inner_mut().unsent = unsent;
        self
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.inner.unsent
    }

    /// Sets the longest backoff after this error: something other than the token endpoint may
    /// bring a token sooner.
    ///
    /// ```
    /// use officernd_auth::{Error, ErrorKind};
    /// use std::time::Duration;
    ///
    /// // A human may correct the secret any moment.
    /// let refused = Error::new(ErrorKind::InvalidClient, "the secret is wrong")
    ///     .with_max_backoff(Duration::from_secs(5));
    /// # drop(refused);
    /// ```
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
    ///
    /// ```
    /// use officernd_auth::{Error, ErrorKind};
    /// use std::time::Duration;
    ///
    /// let error = Error::new(ErrorKind::RateLimited, "later")
    ///     .with_retry_after(Duration::from_millis(1_200));
    /// assert_eq!(error.retry_after_seconds(), Some(2));
    /// ```
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.inner.retry_after?;
        Some(after.as_secs() + u64::from(after.subsec_nanos() > 0))
    }

    /// Returns `true` if the same call may succeed later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// Finds this crate's error in what a tower stack returned: the error itself, one of its
    /// sources, or the error inside an [`io::Error`].
    #[must_use]
    pub fn find(error: &BoxError) -> Option<&Self> {
        Self::find_in(error.as_ref())
    }

    /// Finds this crate's error in any error, such as anyhow's, eyre's or reqwest-middleware's.
    ///
    /// ```
    /// use officernd_auth::{Error, ErrorKind};
    ///
    /// let io = std::io::Error::other(Error::new(ErrorKind::Timeout, "late"));
    /// assert_eq!(Error::find_in(&io).map(Error::kind), Some(ErrorKind::Timeout));
    /// ```
    #[must_use]
    pub fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        // A chain of sources may be a cycle.
        for _ in 0..64 {
            let error = next?;
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // `io::Error::source` skips the error that it wraps.
            next = match error.downcast_ref().and_then(io::Error::get_ref) {
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

/// Prints the message, the kind and the causes, because a `main` that returns the error prints its
/// `Debug`. `{:#?}` shows the fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("Error")
                .field("kind", &self.inner.kind)
                .field("message", &self.inner.message)
                .field("retry_after", &self.inner.retry_after)
                .field("source", &self.inner.source)
                .finish();
        }
        write!(f, "{self} [{}]", self.inner.kind)?;
        write_causes(f, self)
    }
}

/// Shows any error with its causes, on one line of a log.
pub(crate) struct WithCauses<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        write_causes(f, self.0)
    }
}

fn write_causes(f: &mut fmt::Formatter<'_>, error: &(dyn StdError + 'static)) -> fmt::Result {
    let mut next = error.source();
    // A chain of sources may be a cycle.
    for _ in 0..16 {
        let Some(source) = next else { break };
        write!(f, ": {source}")?;
        next = source.source();
    }
    Ok(())
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_error_of_ours_is_found_also_inside_io_errors() {
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
        assert!(format!("{error:#?}").contains("kind: Transport"));
        let missing = ConfigError::setting("X", "is not set");
        assert_eq!(format!("{missing:?}"), missing.to_string());
    }
}
