//! Identifies the token that a request carries.

use std::fmt;
use std::sync::{Arc, Weak};

use super::TokenCache;
use super::core::Core;

/// One token of one cache.
///
/// A request in flight keeps an `Arc` of it, so that a 401 finds its cache. It
/// keeps neither the token nor the cache alive. Each thread has a copy, alone
/// on its cache lines: a count that all threads write would cost more than the
/// rest of a hit.
#[repr(align(128))]
pub(crate) struct TokenId {
    cache: Weak<Core>,
    generation: u64,
}

impl TokenId {
    pub(super) fn new(cache: &Weak<Core>, generation: u64) -> Arc<Self> {
        let cache = Weak::clone(cache);
        Arc::new(Self { cache, generation })
    }

    pub(super) fn copy(&self) -> Arc<Self> {
        Self::new(&self.cache, self.generation)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The cache that the token is from, while it lives.
    pub(crate) fn cache(&self) -> Option<TokenCache> {
        let core = self.cache.upgrade()?;
        Some(TokenCache { core })
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenId")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
