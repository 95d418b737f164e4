//! Where processes meet over one token: sealed bytes under a key, leases, and
//! the fleet's allowance. A store knows neither tokens nor HTTP.
//!
//! OfficeRnD counts five token requests a minute for everything behind one
//! egress address. Twenty pods that start together, a crash loop, a rolling
//! deploy: each should find the token that a sibling already has. Put a
//! [`SharedTokenProvider`](crate::SharedTokenProvider) over a store in front of
//! the provider; the rest of the stack stays as it is.
//!
//! | store | for | feature |
//! |---|---|---|
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisStore`] | a fleet: Redis or Valkey, one server, Sentinel, a cluster | `redis` |"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "| `RedisStore` | a fleet: Redis or Valkey, one server, Sentinel, a cluster | `redis` |"
)]
#![cfg_attr(
    feature = "file",
    doc = "| [`FileStore`] | processes on one host | `file` |"
)]
#![cfg_attr(
    not(feature = "file"),
    doc = "| `FileStore` | processes on one host | `file` |"
)]
//! | your own [`TokenStore`] | whatever you run already | `store` |
//!
//! # What a store sees
//!
//! Names made by HKDF, entries sealed by XChaCha20-Poly1305 under a key made of
//! the client secret: whoever reads the store learns no token, whoever writes
//! to it can make nobody take one. What it can do is stand in the way, and then
//! it is stepped around: an operation that takes longer than 500 ms, or fails,
//! takes the store out of the path for 10 s, and requests go on as without it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{Holder, StoreKey};
use crate::error::Error;

/// No entry is larger: 64 KiB. What is, is not ours.
pub const LARGEST_ENTRY: usize = 64 * 1024;

/// No lease is longer: 10 minutes. A store may take one that claims to be for
/// somebody else's.
pub const LONGEST_LEASE: Duration = Duration::from_secs(10 * 60);

/// What processes share: entries, leases, and places in a window of time.
///
/// Every operation is atomic, on one clock for all who share the store, and
/// everything in it ends by itself. Operations may be repeated: an answer can
/// get lost. Whoever calls sets the time limit and drops what takes longer.
///
/// `testing::check_store` runs what any store must do against yours.
///
/// ```
/// use officernd_auth::Error;
/// use officernd_auth::fleet::{Holder, Lease, Spent, Stored, StoreKey, Terms, TokenStore};
/// use std::time::Duration;
///
/// /// Shares nothing: every process for itself.
/// struct Apart;
///
/// impl TokenStore for Apart {
///     async fn load(&self, _: &StoreKey) -> Result<Option<Stored>, Error> {
///         Ok(None)
///     }
///     async fn save(&self, _: &StoreKey, _: &[u8], _: Duration, _: &Holder) -> Result<bool, Error> {
///         Ok(true)
///     }
///     async fn acquire(&self, _: &StoreKey, _: &Holder, _: Duration) -> Result<Lease, Error> {
///         Ok(Lease::Held)
///     }
///     async fn release(&self, _: &StoreKey, _: &Holder) -> Result<(), Error> {
///         Ok(())
///     }
///     async fn spend(&self, _: &StoreKey, _: &Holder, _: Terms) -> Result<Spent, Error> {
///         Ok(Spent::Granted)
///     }
///     async fn settle(&self, _: &StoreKey, _: &Holder, _: Duration) -> Result<(), Error> {
///         Ok(())
///     }
/// }
/// # drop(Apart);
/// ```
///
/// # Errors
///
/// Any error takes the store out of the path for a while; make it of
/// [`ErrorKind::Store`](crate::ErrorKind::Store). What cannot be read is not an
/// error but nothing (`None`).
///
/// # Cancel safety
///
/// The futures are dropped at their time limit: an operation has then happened
/// or not, and what it took ends by itself.
pub trait TokenStore: Send + Sync + 'static {
    /// The entry under this key, and how long it still lives.
    fn load(&self, key: &StoreKey) -> impl Future<Output = Result<Option<Stored>, Error>> + Send;

    /// Puts an entry under this key for `life`, in place of the one before.
    /// Not (`false`) while somebody other than `holder` has the key's lease:
    /// who was late must not overwrite who took over.
    fn save(
        &self,
        key: &StoreKey,
        entry: &[u8],
        life: Duration,
        holder: &Holder,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Takes the key's lease for `limit` from now if nobody has it, or if
    /// `holder` has it already.
    fn acquire(
        &self,
        key: &StoreKey,
        holder: &Holder,
        limit: Duration,
    ) -> impl Future<Output = Result<Lease, Error>> + Send;

    /// Gives the key's lease up, if it is this holder's.
    fn release(
        &self,
        key: &StoreKey,
        holder: &Holder,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a place in the key's window for `ticket`, if one of
    /// [`Terms::requests`] is free: until it is [settled](Self::settle), but
    /// for no longer than `out + per`. A ticket that has a place keeps it.
    fn spend(
        &self,
        key: &StoreKey,
        ticket: &Holder,
        terms: Terms,
    ) -> impl Future<Output = Result<Spent, Error>> + Send;

    /// The request of this ticket is over: its place is free `per` from now.
    /// With a `per` of zero it was not sent, and the place is free at once.
    /// Nothing happens if the ticket has no place.
    fn settle(
        &self,
        key: &StoreKey,
        ticket: &Holder,
        per: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// An entry as a store gives it out.
///
/// ```
/// use officernd_auth::fleet::Stored;
/// use std::time::Duration;
///
/// let stored = Stored::new(b"sealed".to_vec(), Duration::from_secs(60));
/// assert_eq!(stored.entry, b"sealed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The bytes as they were saved.
    pub entry: Vec<u8>,
    /// How long it still lives, by the store's clock.
    pub expires_in: Duration,
}

impl Stored {
    /// An entry that lives for so long.
    #[must_use]
    pub fn new(entry: Vec<u8>, expires_in: Duration) -> Self {
        Self { entry, expires_in }
    }
}

/// The answer to [`TokenStore::acquire`].
///
/// ```
/// use officernd_auth::fleet::Lease;
///
/// let lease = Lease::Busy(std::time::Duration::from_secs(3));
/// assert_ne!(lease, Lease::Held);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lease {
    /// It is the asker's.
    Held,
    /// It is somebody else's, for at most so long.
    Busy(Duration),
}

/// How many requests may be sent, as [`TokenStore::spend`] is told.
///
/// ```
/// use officernd_auth::fleet::Terms;
/// use std::time::Duration;
///
/// // OfficeRnD's five a minute; a request is answered within 15 s.
/// let terms = Terms::new(5, Duration::from_secs(60), Duration::from_secs(15));
/// assert_eq!(terms.requests, 5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// So many places.
    pub requests: u32,
    /// The length of the window: a place is free this long after its request
    /// was answered.
    pub per: Duration,
    /// A request that is not settled is taken as answered after this.
    pub out: Duration,
}

impl Terms {
    /// `requests` in any stretch of `per`; each is over after `out` at most.
    #[must_use]
    pub fn new(requests: u32, per: Duration, out: Duration) -> Self {
        Self { requests, per, out }
    }
}

/// The answer to [`TokenStore::spend`].
///
/// ```
/// use officernd_auth::fleet::Spent;
///
/// let spent = Spent::Wait(std::time::Duration::from_secs(20));
/// assert_ne!(spent, Spent::Granted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spent {
    /// The request may be sent.
    Granted,
    /// No place is free; one will be after this, if not earlier.
    Wait(Duration),
}

impl<S: TokenStore> TokenStore for Arc<S> {
    fn load(&self, key: &StoreKey) -> impl Future<Output = Result<Option<Stored>, Error>> + Send {
        S::load(self, key)
    }

    fn save(
        &self,
        key: &StoreKey,
        entry: &[u8],
        life: Duration,
        holder: &Holder,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        S::save(self, key, entry, life, holder)
    }

    fn acquire(
        &self,
        key: &StoreKey,
        holder: &Holder,
        limit: Duration,
    ) -> impl Future<Output = Result<Lease, Error>> + Send {
        S::acquire(self, key, holder, limit)
    }

    fn release(
        &self,
        key: &StoreKey,
        holder: &Holder,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        S::release(self, key, holder)
    }

    fn spend(
        &self,
        key: &StoreKey,
        ticket: &Holder,
        terms: Terms,
    ) -> impl Future<Output = Result<Spent, Error>> + Send {
        S::spend(self, key, ticket, terms)
    }

    fn settle(
        &self,
        key: &StoreKey,
        ticket: &Holder,
        per: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        S::settle(self, key, ticket, per)
    }
}

/// Whole milliseconds, at least one: what stores count in.
#[cfg(any(feature = "file", feature = "redis"))]
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}
