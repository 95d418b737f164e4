//! A secret that cannot be printed by accident.

use std::fmt;

use zeroize::Zeroizing;

/// A client secret or a token: wiped when dropped, never printed.
///
/// `Debug` shows `[redacted]`; there is no `Display` and no `Serialize`.
/// [`expose`](Self::expose) is the only way to read it.
///
/// ```
/// use officernd_auth::Secret;
///
/// let secret = Secret::from("hunter2");
/// assert_eq!(format!("{secret:?}"), "[redacted]");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Returns the secret. Keep it out of logs, errors and `Debug` output.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into_boxed_str().into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Box::<str>::from(text).into())
    }
}
