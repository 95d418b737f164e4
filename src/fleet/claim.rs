//! What [`TokenStore`](super::TokenStore) operations take and return.

use std::time::Duration;

use super::name::{Holder, StoreKey};

/// The arguments of [`TokenStore::claim`](super::TokenStore::claim).
///
/// ```
/// use officernd_auth::fleet::{Claim, Holder, Limits, StoreKey};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let (key, window) = (StoreKey::digest_of(b"token"), StoreKey::digest_of(b"endpoint"));
/// // OfficeRnD's five a minute; a request is answered within 15 s.
/// let limits = Limits::new(Duration::from_secs(15), Some(5), Duration::from_secs(60));
/// let claim = Claim::new(key, window, Holder::random()?, limits);
/// assert!(claim.may_fetch && claim.seen.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Claim {
    /// The name of the token.
    pub key: StoreKey,
    /// The name of the endpoint's window of requests.
    pub window: StoreKey,
    /// The caller.
    pub holder: Holder,
    /// How long a lease lasts, and how many requests the window takes.
    pub limits: Limits,
    /// The id of the entry that the caller knows and cannot use.
    pub seen: Option<Holder>,
    /// Whether the caller may send a token request now.
    pub may_fetch: bool,
}

impl Claim {
    /// A claim by a caller that has seen no entry and may fetch.
    #[must_use]
    pub fn new(key: StoreKey, window: StoreKey, holder: Holder, limits: Limits) -> Self {
        Self {
            key,
            window,
            holder,
            limits,
            seen: None,
            may_fetch: true,
        }
    }
}

/// The limits of a [`Claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How long a lease lasts: one request. Use the same in all processes.
    pub lease: Duration,
    /// The most requests in the window; `None` for no limit.
    pub requests: Option<u32>,
    /// The length of the window, counted from the answer to a request.
    pub per: Duration,
}

impl Limits {
    /// A lease of `lease`; at most `requests` token requests in any `per`.
    #[must_use]
    pub fn new(lease: Duration, requests: Option<u32>, per: Duration) -> Self {
        Self {
            lease,
            requests,
            per,
        }
    }
}

/// The answer to [`TokenStore::claim`](super::TokenStore::claim).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claimed {
    /// An entry that the caller has not seen.
    Entry(StoredEntry),
    /// The caller has the lease and a place in the window: fetch, then finish.
    Granted,
    /// Another holder has the lease, for at most this long.
    Leased(Duration),
    /// No holder has the lease. The window has a place after this at the
    /// latest; zero if only [`Claim::may_fetch`] was missing.
    RateLimited(Duration),
}

/// A sealed entry, as a store returns and saves it.
///
/// ```
/// use officernd_auth::fleet::{Holder, StoredEntry};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let entry = StoredEntry::new(Holder::random()?, b"sealed".to_vec(), Duration::from_secs(60));
/// assert_eq!(entry.sealed, b"sealed");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEntry {
    /// The holder that saved it.
    pub id: Holder,
    /// The bytes as they were saved.
    pub sealed: Vec<u8>,
    /// How long it still lives, by the store's clock.
    pub expires_in: Duration,
}

impl StoredEntry {
    /// An entry that lives for `expires_in`.
    #[must_use]
    pub fn new(id: Holder, sealed: Vec<u8>, expires_in: Duration) -> Self {
        Self {
            id,
            sealed,
            expires_in,
        }
    }
}

/// The arguments of [`TokenStore::finish`](super::TokenStore::finish).
///
/// ```
/// use officernd_auth::fleet::{Finish, Holder, StoreKey};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let (key, window) = (StoreKey::digest_of(b"token"), StoreKey::digest_of(b"endpoint"));
/// let minute = Duration::from_secs(60);
/// let finish = Finish::new(key, window, Holder::random()?, minute).entry(b"sealed".to_vec(), minute);
/// assert!(finish.entry.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finish {
    /// The name of the token.
    pub key: StoreKey,
    /// The name of the endpoint's window of requests.
    pub window: StoreKey,
    /// The caller.
    pub holder: Holder,
    /// What to save; `None` only gives up the lease.
    pub entry: Option<StoredEntry>,
    /// When the holder's place in the window is free; zero if nothing was sent.
    pub frees_after: Duration,
}

impl Finish {
    /// Gives up the lease and frees the place after `frees_after`.
    #[must_use]
    pub fn new(key: StoreKey, window: StoreKey, holder: Holder, frees_after: Duration) -> Self {
        Self {
            key,
            window,
            holder,
            entry: None,
            frees_after,
        }
    }

    /// Saves these bytes for `life`.
    #[must_use]
    pub fn entry(mut self, sealed: Vec<u8>, life: Duration) -> Self {
        self.entry = Some(StoredEntry::new(self.holder.clone(), sealed, life));
        self
    }
}
