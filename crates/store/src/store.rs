//! [`TokenStore`]: where processes share one token, one lease and one window of
//! token requests. A store knows neither tokens nor HTTP.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use officernd_auth::{Error, ErrorKind};
use sha2::{Digest as _, Sha256};

/// The largest sealed entry: 64 KiB. A store treats a larger one as absent.
pub const MAX_ENTRY_SIZE: usize = 64 * 1024;

/// What processes share: one sealed entry and one lease for each token, and one window of token requests for
/// each endpoint.
///
/// Each operation is one atomic step on one clock, the same for all processes. Everything in the store
/// expires by itself. An operation may be repeated with the same holder, because an answer can be lost. The
/// caller drops an operation that takes longer than 3 s.
///
/// `testing::check_store` checks an implementation.
///
/// ```
/// use officernd_auth::Error;
/// use officernd_auth_store::{Claim, Claimed, Finish, TokenStore};
///
/// /// Shares nothing: each process fetches its own token.
/// struct Apart;
///
/// impl TokenStore for Apart {
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
/// # drop(Apart);
/// ```
///
/// # Errors
///
/// Any error takes the store out of use for 10 s; make it of kind [`ErrorKind::Store`]. Content that cannot
/// be read is not an error: treat it as absent.
///
/// # Cancel safety
///
/// A dropped operation may still take effect. A lease or place that it took expires by itself.
pub trait TokenStore: Send + Sync + 'static {
    /// Returns the entry of the key unless its id is [`Claim::seen`]. Otherwise grants the lease of the key
    /// and a place in the window, if the caller may fetch, no other holder has the lease, and the window has
    /// a free place. Otherwise says how long to wait.
    ///
    /// A holder that has the lease already gets it anew and keeps its place. A lease of another holder that
    /// has more than [`Limits::lease`] left counts as absent. With a limit, a place that ends later than any
    /// request can is shortened.
    fn claim(&self, claim: &Claim) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Saves the entry in place of the one before and gives up the lease, if the holder still has it. In any
    /// case the holder's place becomes free after [`Finish::frees_after`].
    ///
    /// Returns whether the holder had the lease, or has saved this entry before.
    fn finish(&self, finish: &Finish) -> impl Future<Output = Result<bool, Error>> + Send;
}

type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// [`TokenStore`] as an object. A fetch calls it a few times an hour, so a box for each call costs nothing.
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

/// A name in a store, of a token, a window, or a holder: 32 hexadecimal digits.
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
    /// Returns the name for these bytes: the start of their SHA-256. Not for secrets, because short bytes can
    /// be guessed from it.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self::from_bytes(digest.first_chunk().copied().unwrap_or_default())
    }

    /// Returns a new name: 128 random bits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] if the system has no random numbers.
    pub fn random() -> Result<Self, Error> {
        random().map(Self::from_bytes)
    }

    /// Reads a name as [`as_str`](Self::as_str) shows it; `None` for other text.
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

/// Draws bytes from the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = "the system has no random numbers to give";
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
/// // OfficeRnD's five a minute; a request is answered within 15 s.
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
    /// How long a lease lasts, and how many requests the window takes.
    pub limits: Limits,
    /// The id of the entry that the caller knows and cannot use.
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
    /// How long a lease lasts: one request. Use the same in all processes.
    pub lease: Duration,
    /// The most requests in the window; `None` for no limit.
    pub requests: Option<u32>,
    /// The length of the window, counted from the answer to a request.
    pub per: Duration,
}

impl Limits {
    /// Sets a lease of `lease`, and at most `requests` token requests in any `per`.
    #[must_use]
    pub const fn new(lease: Duration, requests: Option<u32>, per: Duration) -> Self {
        Self {
            lease,
            requests,
            per,
        }
    }
}

/// The answer to [`TokenStore::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claimed {
    /// An entry that the caller has not seen.
    Entry(StoredEntry),
    /// The caller has the lease and a place in the window: fetch, then finish.
    Granted,
    /// Another holder has the lease, for at most this long.
    Leased(Duration),
    /// No holder has the lease. A place is free after this time at the latest. Zero: a place is free, but
    /// [`Claim::may_fetch`] was `false`.
    RateLimited(Duration),
}

/// A sealed entry, as a store saves and returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEntry {
    /// The holder that saved it.
    pub id: Name,
    /// The bytes as they were saved.
    pub sealed: Vec<u8>,
    /// What is left of its life, by the store's clock.
    pub expires_in: Duration,
}

impl StoredEntry {
    /// Makes an entry that lives for `expires_in`.
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
    /// What to save; `None`, or an entry without bytes, only gives up the lease.
    pub entry: Option<StoredEntry>,
    /// How long the holder keeps its place in the window; zero if nothing was sent.
    pub frees_after: Duration,
}

impl Finish {
    /// Gives up the lease and frees the place after `frees_after`.
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

    /// Saves these bytes for `life`.
    #[must_use]
    pub fn entry(mut self, sealed: Vec<u8>, life: Duration) -> Self {
        self.entry = Some(StoredEntry::new(self.holder.clone(), sealed, life));
        self
    }
}

/// Whole milliseconds, at least one: the unit of stores.
#[cfg(any(feature = "testing", feature = "file", feature = "redis"))]
pub(crate) fn millis(duration: Duration) -> u64 {
    whole_millis(duration).max(1)
}

#[cfg(any(feature = "testing", feature = "file", feature = "redis"))]
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
