//! One OfficeRnD token for many processes, for [`officernd-auth`](officernd_auth).
//!
//! OfficeRnD allows five token requests a minute, so twenty pods that start together cannot each
//! request a token. With a store, one process fetches a token and the others take it; if the store
//! fails, each process goes on by itself.
//!
//! ```no_run
//! # #[cfg(feature = "redis")] mod program {
//! use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
//! use officernd_auth_store::{RedisStore, SharedTokenProvider};
//!
//! # #[allow(dead_code)]
//! fn layer() -> Result<OfficeRndAuthLayer, Box<dyn std::error::Error>> {
//!     let http = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
//!     let redis = RedisStore::new("rediss://app:password@redis.internal:6379")?;
//!     Ok(OfficeRndAuthLayer::new(SharedTokenProvider::new(http, redis)))
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! # Which store
//!
//! | store | for | feature |
//! |---|---|---|
//! | [`RedisStore`] | processes on many hosts: Redis or Valkey, one server, Sentinel, a cluster | `redis`, on by default |
//! | [`FileStore`] | processes on one host | `file` |
//! | your own [`TokenStore`] | a database that you already run; [`testing::check_store`] checks it | none |
//!
//! Up to five processes behind one address need no store: each fetches its own token. Five requests
//! a minute are 300 tokens an hour, so above 300 processes no backoff serves all without a store.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | none | | [`SharedTokenProvider`] over a [`TokenStore`] of your own |
//! | `redis` | yes | [`RedisStore`] |
//! | `file` | no | [`FileStore`] |
//! | `metrics` | no | two counters through the `metrics` facade, and [`describe_metrics`] |
//! | `testing` | no | [`MemoryStore`](testing::MemoryStore) and [`check_store`](testing::check_store) |
//!
//! Events, metrics and the fields of [`StoreStatus`] are listed in
//! [docs/observability.md](https://docs.rs/crate/officernd-auth-store/latest/source/docs/observability.md).
//!
//! # What a store sees
//!
//! A store holds names made by HKDF, and entries sealed by XChaCha20-Poly1305 under a key
//! made from the client secret. A reader of the store learns no token. A writer
//! cannot make a process use a forged token, but can restore an older entry
//! whose token has not expired, delay requests by a lease (15 s), or fill the
//! window.
//!
//! # How it works
//!
//! [`TokenStore::claim`] returns the entry, or grants the fetch to one process,
//! or returns how long to wait. That process sends one token request and calls
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
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "file",
        feature = "metrics",
        feature = "redis",
        feature = "testing"
    )),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the crate page links to every feature"
    )
)]

mod breaker;
mod clock;
#[cfg(feature = "testing")]
mod conformance;
mod entry;
mod error;
mod events;
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
mod seal;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::breaker::StoreStatus;
pub use self::error::ConfigError;
#[cfg(feature = "metrics")]
pub use self::events::describe_metrics;
#[cfg(feature = "file")]
pub use self::file::FileStore;
pub use self::provider::SharedTokenProvider;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::store::{
    Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore,
};
