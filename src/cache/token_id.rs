//! Identifies the token that a request carries.

use std::fmt;
use std::sync::{Arc, Weak};

use super::TokenCache;
use super::state::State;
use crate::sync::{AtomicBool, Ordering};

/// One token of one cache.
///
/// A request in flight keeps an `Arc` of it, so that a 401 finds its cache. It
/// keeps neither the token nor the cache alive. Each thread has a copy, alone
/// on its cache lines: a count that all threads write would cost more than the
/// rest of a hit.
#[repr(align(128))]
pub(crate) struct TokenId {
    cache: Weak<State>,
    generation: u64,
    /// The last response to the token that counts was a 401: a 2xx would be
    /// evidence that the token is good.
    doubted: AtomicBool,
}

impl TokenId {
    pub(super) fn new(cache: &Weak<State>, generation: u64) -> Arc<Self> {
        Arc::new(Self {
            cache: Weak::clone(cache),
            generation,
            doubted: AtomicBool::new(false),
        })
    }

    pub(super) fn copy(&self) -> Arc<Self> {
        let copy = Self::new(&self.cache, self.generation);
        copy.doubt(self.is_doubted());
        copy
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
    pub(crate) fn cache(&self) -> Option<TokenCache> {
        let state = self.cache.upgrade()?;
        Some(TokenCache { state })
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenId")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
