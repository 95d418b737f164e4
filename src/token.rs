//! An access token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::secret::Secret;
use crate::syntax;

/// The longest lifetime of a token, even if the server grants more.
pub(crate) const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest token. 16 KiB is more than most servers accept in all headers.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// An access token, with its `Authorization` value marked sensitive.
///
/// Cheap to clone. Its bytes are wiped when its last clone and its last header value are dropped.
/// `Debug` never shows them.
///
/// ```
/// use officernd_auth::AccessToken;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM", Duration::from_secs(3600))?;
/// assert_eq!(token.header_value(), "Bearer mF_9.B5f-4.1JqM");
/// assert!(token.header_value().is_sensitive());
/// assert!(!format!("{token:?}").contains("mF_9"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AccessToken {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    header: HeaderValue,
    expires_in: Duration,
    scope: Option<Box<str>>,
    generation: u64,
}

impl AccessToken {
    /// Creates a bearer token (RFC 6750) that is valid for `expires_in` from the start of its request,
    /// at most 24 hours.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Malformed`] if the token has characters outside RFC 6750's `b64token`, is
    /// longer than 16 KiB, or if `expires_in` is zero. The error does not show the token.
    pub fn bearer(token: impl Into<Secret>, expires_in: Duration) -> Result<Self, Error> {
        const PREFIX: &[u8] = b"Bearer ";

        let token = token.into();
        let token = token.expose().as_bytes();
        let malformed = |message| Error::new(ErrorKind::Malformed, message);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("the access token is over 16 KiB"));
        }
        if !syntax::valid_b64token(token) {
            let message = "the access token is empty or has characters outside RFC 6750's b64token";
            return Err(malformed(message));
        }
        if expires_in.is_zero() {
            let message = "the access token has already expired (expires_in is zero)";
            return Err(malformed(message));
        }
        let mut value = Zeroizing::new(Vec::with_capacity(PREFIX.len() + token.len()));
        value.extend_from_slice(PREFIX);
        value.extend_from_slice(token);
        let header = header_value(value)
            .map_err(|_| malformed("the access token is not a valid header value"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                header,
                expires_in: expires_in.min(MAX_LIFE),
                scope: None,
                generation: 0,
            }),
        })
    }

    /// Adds the scope that the server granted, separated by spaces.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).scope = Some(scope.into().into_boxed_str());
        self
    }

    /// Returns the value of `Authorization`: `Bearer ...`, marked sensitive.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.inner.header
    }

    /// Copies the header value, with separate bytes and reference count.
    pub(crate) fn copy_header_value(&self) -> HeaderValue {
        let header = &self.inner.header;
        let bytes = Zeroizing::new(header.as_bytes().to_vec());
        header_value(bytes).unwrap_or_else(|_| header.clone())
    }

    /// Returns the granted lifetime of the token. [`TokenStatus`](crate::TokenStatus) has the time
    /// until its expiry.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.inner.expires_in
    }

    /// Returns the granted scope, if it is known. A response without a scope has granted the requested
    /// one (RFC 6749 section 5.1).
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.inner.scope.as_deref()
    }

    /// Returns the number of the token in its cache, from 1; 0 outside a cache.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    pub(crate) fn with_generation(mut self, generation: u64) -> Self {
        Arc::make_mut(&mut self.inner).generation = generation;
        self
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.inner.generation)
            .field("expires_in", &self.inner.expires_in)
            .field("scope", &self.inner.scope)
            .finish_non_exhaustive()
    }
}

/// Creates a sensitive header value whose bytes are wiped, and whose reference count shares no cache
/// line with other data.
fn header_value(bytes: Zeroizing<Vec<u8>>) -> Result<HeaderValue, InvalidHeaderValue> {
    #[repr(align(128))]
    struct Alone(Zeroizing<Vec<u8>>);

    impl AsRef<[u8]> for Alone {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(Alone(bytes)))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_header_value_has_separate_bytes_and_is_sensitive() {
        let token = AccessToken::bearer("t", MAX_LIFE).unwrap();
        let (shared, copy) = (token.header_value(), token.copy_header_value());
        assert_eq!(*shared, copy);
        assert_ne!(shared.as_bytes().as_ptr(), copy.as_bytes().as_ptr());
        assert!(copy.is_sensitive());
    }
}
