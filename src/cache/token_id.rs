//! Identifies the token that a request carries.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::sync::{AtomicBool, Ordering};

/// One token of one cache.
///
/// A request in flight keeps an `Arc` of it, so that a 401 finds its cache. It
/// keeps neither the token nor the cache alive. Each thread has a copy, alone
/// on its cache lines: a count that all threads write would cost more than the
/// rest of a hit.
#[repr(align(128))]
pub(crate) struct TokenId<C> {
    cache: Weak<C>,
    generation: u64,
    /// The last response to the token that counts was a 401: a 2xx would be
    /// evidence that the token is good.
    doubted: AtomicBool,
    /// The origin of the one request that this id is of, if its response says
    /// where it is from.
    sent_to: Option<Box<str>>,
}

impl<C> TokenId<C> {
    pub(super) fn new(cache: &Weak<C>, generation: u64) -> Arc<Self> {
        Arc::new(Self {
            cache: Weak::clone(cache),
            generation,
            doubted: AtomicBool::new(false),
            sent_to: None,
        })
    }

    pub(super) fn copy(&self) -> Arc<Self> {
        self.sent_to(None)
    }

    /// A copy for one request. In place of the id itself, so that the response
    /// future keeps one pointer for every type of request.
    pub(crate) fn sent_to(&self, origin: Option<Box<str>>) -> Arc<Self> {
        Arc::new(Self {
            cache: Weak::clone(&self.cache),
            generation: self.generation,
            doubted: AtomicBool::new(self.is_doubted()),
            sent_to: origin,
        })
    }

    pub(crate) fn origin(&self) -> Option<&str> {
        self.sent_to.as_deref()
    }

    pub(super) fn doubt(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Relaxed);
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The cache that the token is from, while it lives.
    pub(super) fn cache(&self) -> Option<Arc<C>> {
        self.cache.upgrade()
    }
}

impl<C> fmt::Debug for TokenId<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenId")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
