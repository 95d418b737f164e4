//! The names in a store: keys and holders, 32 hexadecimal digits each.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind};

/// The name of a token or of a window: 32 hexadecimal digits.
///
/// ```
/// use officernd_auth::fleet::StoreKey;
///
/// let key = StoreKey::digest_of(b"anything");
/// assert_eq!(key.as_str().len(), 32);
/// assert_ne!(key, StoreKey::digest_of(b"something else"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(String);

impl StoreKey {
    /// The key for these bytes. Not for secrets: short bytes can be guessed
    /// from it.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self::from_bytes(digest.first_chunk().copied().unwrap_or_default())
    }

    /// The name, to be used in the store with a prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hex(bytes))
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one fetch, and of the entry that it saves: 32 random
/// hexadecimal digits.
///
/// ```
/// use officernd_auth::fleet::Holder;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let holder = Holder::random()?;
/// assert_ne!(holder, Holder::random()?);
/// assert_eq!(Holder::parse(holder.as_str()), Some(holder));
/// assert_eq!(Holder::parse("not hex"), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder(String);

impl Holder {
    /// A new name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] if the system has no random numbers.
    pub fn random() -> Result<Self, Error> {
        random::<16>().map(|bytes| Self(hex(bytes)))
    }

    /// A name as [`as_str`](Self::as_str) shows it; `None` for other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(digits)).then(|| Self(text.to_owned()))
    }

    /// The name, as stores compare it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes from the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = "the system has no random numbers to give";
        Error::new(ErrorKind::Store, message).with_source(error)
    })?;
    Ok(bytes)
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}
