#![doc = include_str!("../README.md")]
//!
//! ## How it works
//!
//! [`SharedTokenProvider`] wraps a provider. [`TokenStore::claim`] returns the stored entry, grants the fetch to
//! one process, or returns how long to wait. The process with the grant sends one token request and calls
//! [`TokenStore::finish`], which saves the token or the failure. The others claim again every 50 to 200 ms,
//! doubling to 0.9 s. A lease covers one request (`fetch_timeout` + 5 s).
//!
//! A test explores this protocol exhaustively, with crashes, pauses past the lease, lost replies, rejected tokens
//! and steps of the wall clock. ARCHITECTURE.md of the repository describes it.
#![cfg_attr(docsrs, feature(doc_cfg))]

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
