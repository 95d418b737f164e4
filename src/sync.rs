//! The synchronization of a cache: std, arc-swap and tokio.
//!
//! With `--cfg shuttle`, `sync/model.rs` replaces this file (tests/model.rs).

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) use tokio::runtime::Handle;

/// A pointer that is read without a lock.
pub(crate) type Swap<T> = arc_swap::ArcSwapOption<T>;
/// The value of a [`Swap`], borrowed.
pub(crate) type Guard<T> = arc_swap::Guard<Option<std::sync::Arc<T>>>;
