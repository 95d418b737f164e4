//! One token for many processes, over a shared store. For a fleet with Redis:
//!
//! ```no_run
//! use officernd_auth::fleet::{RedisStore, SharedTokenProvider};
//! use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let http = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
//! let redis = RedisStore::new("rediss://app:password@redis.internal:6379")?;
//! let layer = OfficeRndAuthLayer::new(SharedTokenProvider::new(http, redis));
//! # drop(layer);
//! # Ok(())
//! # }
//! ```
//!
//! OfficeRnD allows five token requests a minute. Twenty pods that start
//! together, a crash loop and a rolling deploy need more; with a store, each
//! process takes the token that another one has fetched.
//!
//! # Which store
//!
//! | store | for | feature |
//! |---|---|---|
//! | `RedisStore` | a fleet: Redis or Valkey, one server, Sentinel, a cluster | `redis` |
//! | `FileStore` | processes on one host | `file` |
//! | your own [`TokenStore`] | whatever you already run | `store` |
//!
//! Without any store, five requests a minute are 300 tokens an hour: above 300
//! processes that share nothing, no backoff serves all of them.
//!
//! # What a store sees
//!
//! Names made by HKDF, and entries sealed by XChaCha20-Poly1305 under a key
//! made of the client secret. A reader of the store learns no token; a writer
//! cannot make a process use a token of its own, but can restore an older entry
//! whose token has not expired, delay requests by a lease (15 s), or fill the
//! window.
//!
//! # How it works
//!
//! [`TokenStore::claim`] returns the entry, or grants the fetch to one process,
//! or says how long to wait. That process sends one token request and calls
//! [`TokenStore::finish`], which saves the token or the failure. The others ask
//! again every 50 to 200 ms, doubling to 0.9 s. A lease covers one request
//! (`fetch_timeout` + 5 s) and is never held while waiting.
//!
//! A test explores this protocol exhaustively: three processes, a window of two
//! requests, with a crash, pauses past the lease, lost answers, rejected tokens
//! and steps of the wall clock. It checks that there is one live grant per key,
//! that the window is never exceeded, that no older entry replaces a newer one,
//! and that from every state, at most one more token request gives each process a
//! token or a time to retry.

mod breaker;
mod entry;
mod fetch;
#[cfg(feature = "file")]
mod file;
#[cfg(all(test, feature = "testing"))]
mod model;
mod provider;
#[cfg(any(feature = "testing", feature = "file"))]
mod record;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod seal;
mod store;

pub use self::breaker::StoreStatus;
#[cfg(feature = "file")]
pub use self::file::FileStore;
pub use self::provider::SharedTokenProvider;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::store::{
    Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore,
};
#[cfg(feature = "testing")]
pub(crate) use self::{
    record::{Record, Window},
    store::whole_millis,
};
