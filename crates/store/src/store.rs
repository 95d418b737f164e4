//! [`TokenStore`] and its arguments. A store has no knowledge of tokens or HTTP.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use officernd_auth::{Error, ErrorKind};
use sha2::{Digest as _, Sha256};

/// The largest sealed entry: 64 KiB. A store treats a larger one as absent.
pub const MAX_ENTRY_SIZE: usize = 64 * 1024;

/// A store that processes share: one sealed entry and one lease for each token, and one window of token
/// requests for each endpoint.
///
/// Each operation is one atomic step, on one clock for all processes. Everything in the store expires. An
/// operation may be repeated with the same holder, because a reply can be lost. The caller drops an operation
/// that takes longer than 3 s.
///
/// `testing::check_store` checks an implementation.
///
/// ```
/// use officernd_auth::Error;
/// use officernd_auth_store::{Claim, Claimed, Finish, TokenStore};
///
/// /// Shares nothing: each process fetches its own token.
/// struct Unshared;
///
/// impl TokenStore for Unshared {
///     async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
///         Ok(match claim.may_fetch {
///             true => Claimed::Granted,
///             false => Claimed::RateLimited(std::time::Duration::ZERO),
///         })
///     }
///     async fn finish(&self, _: &Finish) -> Result<bool, Error> {
///         Ok(true)
///     }
/// }
/// # drop(Unshared);
/// ```
///
/// # Errors
///
/// Any error puts the store out of use for 10 s; use [`ErrorKind::Store`]. Content that cannot be read is not an
/// error: treat it as absent.
///
/// # Cancel safety
///
/// A dropped operation may still take effect. A lease or slot that it took expires.
pub trait TokenStore: Send + Sync + 'static {
    /// Returns the entry of the key, unless its id is [`Claim::seen`]. Otherwise grants the lease of the key and
    /// a slot in the window, if the caller may fetch, no other holder has the lease, and a slot is free.
    /// Otherwise returns how long to wait.
    ///
    /// If the holder already has the lease, renews it; the holder keeps its one slot. Ignores a lease of another
    /// holder that has more than [`Limits::lease`] left. With a limit, shortens slots that end later than any
    /// request can: after `lease` + `per`.
    fn claim(&self, claim: &Claim) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Replaces the entry and releases the lease, if the holder still has it. Even without the lease, the
    /// holder's slot becomes free after [`Finish::frees_after`].
    ///
    /// Returns `true` if the holder had the lease, or has saved this entry before.
    fn finish(&self, finish: &Finish) -> impl Future<Output = Result<bool, Error>> + Send;
}

type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The object-safe form of [`TokenStore`].
pub(crate) trait DynStore: Send + Sync {
    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed>;
    fn finish<'a>(&'a self, finish: &'a Finish) -> StoreFuture<'a, bool>;
}

impl<S: TokenStore> DynStore for S {
    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(TokenStore::claim(self, claim))
    }

    fn finish<'a>(&'a self, finish: &'a Finish) -> StoreFuture<'a, bool> {
        Box::pin(TokenStore::finish(self, finish))
    }
}

/// The name of a token, a window, or a holder in a store: 32 hexadecimal digits.
///
/// ```
/// use officernd_auth_store::Name;
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let key = Name::digest_of(b"anything");
/// assert_ne!(key, Name::digest_of(b"something else"));
///
/// let holder = Name::random()?;
/// assert_ne!(holder, Name::random()?);
/// assert_eq!(Name::parse(holder.as_str()), Some(holder));
/// assert_eq!(Name::parse("not hex"), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Returns the name for these bytes: the first 128 bits of their SHA-256. Do not use it for secrets, which
    /// could be guessed from it.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self::from_bytes(digest.first_chunk().copied().unwrap_or_default())
    }

    /// Returns a new name of 128 random bits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] if the system's random number generator fails.
    pub fn random() -> Result<Self, Error> {
        random().map(Self::from_bytes)
    }

    /// Parses 32 lowercase hexadecimal digits; returns `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(digits)).then(|| Self(text.to_owned()))
    }

    /// Returns the 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns bytes of the system's random number generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = "the system's random number generator failed";
        Error::new(ErrorKind::Store, message).with_source(error)
    })?;
    Ok(bytes)
}

/// The arguments of [`TokenStore::claim`].
///
/// ```
/// use officernd_auth_store::{Claim, Claimed, Finish, Limits, Name, TokenStore};
/// use officernd_auth_store::testing::MemoryStore;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let (key, window) = (Name::digest_of(b"token"), Name::digest_of(b"endpoint"));
/// // Five requests a minute; a request ends within 15 s.
/// let minute = Duration::from_secs(60);
/// let limits = Limits::new(Duration::from_secs(15), Some(5), minute);
/// let claim = Claim::new(key.clone(), window.clone(), Name::random()?, limits);
///
/// let store = MemoryStore::new();
/// assert_eq!(store.claim(&claim).await?, Claimed::Granted);
/// let finish = Finish::new(key, window, claim.holder.clone(), minute);
/// assert!(store.finish(&finish.entry(b"sealed".to_vec(), minute)).await?);
/// assert!(matches!(store.claim(&claim).await?, Claimed::Entry(it) if it.sealed == b"sealed"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Claim {
    /// The name of the token.
    pub key: Name,
    /// The name of the endpoint's window of requests.
    pub window: Name,
    /// The name of the caller.
    pub holder: Name,
    /// The length of a lease, and the rate limit.
    pub limits: Limits,
    /// The id of the entry that the caller has seen and cannot use.
    pub seen: Option<Name>,
    /// Whether the caller may send a token request now.
    pub may_fetch: bool,
}

impl Claim {
    /// Makes a claim by a caller that has seen no entry and may fetch.
    #[must_use]
    pub fn new(key: Name, window: Name, holder: Name, limits: Limits) -> Self {
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
    /// The length of a lease, which covers one token request. Use the same length in all processes.
    pub lease: Duration,
    /// The maximum number of requests in the window; `None` for no limit.
    pub requests: Option<u32>,
    /// The length of the window, counted from the response to a request.
    pub per: Duration,
}

impl Limits {
    /// Makes limits: leases of `lease`, and at most `requests` token requests in any `per`.
    #[must_use]
    pub const fn new(lease: Duration, requests: Option<u32>, per: Duration) -> Self {
        Self {
            lease,
            requests,
            per,
        }
    }
}

/// The result of [`TokenStore::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claimed {
    /// An entry that the caller has not seen.
    Entry(StoredEntry),
    /// The caller has the lease and a slot in the window. It sends a token request, then calls `finish`.
    Granted,
    /// Another holder has the lease, for at most this long.
    Leased(Duration),
    /// No other holder has the lease, and a slot becomes free within this time. Zero if a slot is free, but
    /// [`Claim::may_fetch`] is `false`.
    RateLimited(Duration),
}

/// A sealed entry, as a store saves and returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEntry {
    /// The holder that saved it.
    pub id: Name,
    /// The saved bytes.
    pub sealed: Vec<u8>,
    /// The remaining lifetime, by the store's clock.
    pub expires_in: Duration,
}

impl StoredEntry {
    /// Makes an entry that expires after `expires_in`.
    #[must_use]
    pub fn new(id: Name, sealed: Vec<u8>, expires_in: Duration) -> Self {
        Self {
            id,
            sealed,
            expires_in,
        }
    }
}

/// The arguments of [`TokenStore::finish`]; [`Claim`] has an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finish {
    /// The name of the token.
    pub key: Name,
    /// The name of the endpoint's window of requests.
    pub window: Name,
    /// The name of the caller.
    pub holder: Name,
    /// The entry to save. With `None`, or an entry without bytes, `finish` only releases the lease.
    pub entry: Option<StoredEntry>,
    /// How long the holder keeps its slot: [`Limits::per`] after a request, zero if nothing was sent.
    pub frees_after: Duration,
}

impl Finish {
    /// Makes the end of a claim that saves nothing.
    #[must_use]
    pub fn new(key: Name, window: Name, holder: Name, frees_after: Duration) -> Self {
        Self {
            key,
            window,
            holder,
            entry: None,
            frees_after,
        }
    }

    /// Sets the entry to save, and its lifetime.
    #[must_use]
    pub fn entry(mut self, sealed: Vec<u8>, life: Duration) -> Self {
        self.entry = Some(StoredEntry::new(self.holder.clone(), sealed, life));
        self
    }
}

/// Returns whole milliseconds, at least one.
#[cfg(any(feature = "testing", feature = "file", feature = "redis"))]
pub(crate) fn millis(duration: Duration) -> u64 {
    whole_millis(duration).max(1)
}

#[cfg(any(feature = "testing", feature = "file", feature = "redis"))]
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
