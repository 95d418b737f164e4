//! The slot that every request reads: one pointer, replaced as a whole.
//!
//! ARCHITECTURE.md, "The hit path", gives the reasons for its shape.

use std::sync::Arc;

use super::token::Token;
use crate::sync::{AtomicU64, Guard, Ordering, Swap};

/// The current token of a cache.
///
/// Alone on its cache lines: all threads read it, and its neighbors are written.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Slot {
    token: Swap<Token>,
    /// The generation of the token; 0 before the first.
    ///
    /// Written after the token: a thread that reads it finds this token or a newer one.
    version: AtomicU64,
}

impl Slot {
    /// The token for one request: a borrow, not a reference count.
    #[inline(always)]
    pub(super) fn load(&self) -> Guard<Token> {
        self.token.load()
    }

    /// The token to keep.
    pub(super) fn get(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    /// The token, if it is of a later generation. By the version, not by the token itself: a
    /// service that keeps the old token must see the new version, too.
    pub(super) fn newer_than(&self, generation: u64) -> Option<Arc<Token>> {
        let newer = self.version.load(Ordering::Acquire) > generation;
        self.get().filter(|_| newer)
    }

    pub(super) fn publish(&self, token: &Arc<Token>) {
        self.token.store(Some(Arc::clone(token)));
        self.version.store(token.generation(), Ordering::Release);
    }
}

/// A copy of the current token that belongs to one service.
///
/// A clone starts empty, and the first request of each token reads the slot itself: so a service
/// that is cloned for every request makes no copies.
#[derive(Debug, Default)]
pub(crate) struct SlotReader {
    copy: Option<Arc<Token>>,
    /// The version at the last look into the slot.
    version: u64,
}

impl SlotReader {
    /// The current token as this service's own copy, from the second request per token on.
    #[inline(always)]
    pub(super) fn copy(&mut self, slot: &Slot) -> Option<&Arc<Token>> {
        if slot.version.load(Ordering::Acquire) == self.version && self.copy.is_some() {
            return self.copy.as_ref();
        }
        self.renew(slot)
    }

    #[cold]
    fn renew(&mut self, slot: &Slot) -> Option<&Arc<Token>> {
        let version = slot.version.load(Ordering::Acquire);
        if version != self.version || version == 0 {
            self.version = version;
            self.copy = None;
            return None;
        }
        let token = slot.get()?;
        // The token may be newer than the version; then the next request looks again.
        self.version = token.generation();
        Some(self.copy.insert(token.copy()))
    }
}

impl Clone for SlotReader {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::TokenCache;
    use crate::provider::StaticToken;

    #[tokio::test]
    async fn a_reader_keeps_bytes_and_counts_of_its_own_from_the_second_request_per_token_on() {
        let cache = TokenCache::new(StaticToken::new("t").unwrap());
        let slot = &cache.state.slot;
        let mut reader = SlotReader::default();
        assert!(reader.copy(slot).is_none());
        for _ in 0..2 {
            cache.refresh().await.unwrap();
            let shared = slot.get().unwrap();
            assert!(reader.copy(slot).is_none(), "the first request");
            let copy = Arc::clone(reader.copy(slot).unwrap());
            assert!(Arc::ptr_eq(reader.copy(slot).unwrap(), &copy));
            assert_eq!(copy.value(), shared.value());
            assert_ne!(
                copy.value().as_bytes().as_ptr(),
                shared.value().as_bytes().as_ptr()
            );
            assert!(copy.value().is_sensitive());
            assert_eq!(copy.generation(), shared.generation());
            assert!(reader.clone().copy(slot).is_none());
        }
    }
}
