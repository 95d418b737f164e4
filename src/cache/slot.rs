//! The slot that every request reads. ARCHITECTURE.md, "A hit", explains its design.

use std::sync::Arc;

use super::token::Token;
use crate::sync::{AtomicU64, Guard, Ordering, Swap};

/// The current token of a cache.
///
/// Aligned, because all threads read it while adjacent fields are written.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Slot {
    token: Swap<Token>,
    /// The generation of the token; 0 before the first. Written after the token, so a thread that
    /// reads it finds this token or a newer one.
    version: AtomicU64,
}

impl Slot {
    /// Borrows the token for one request, without changing its reference count.
    #[inline(always)]
    pub(super) fn load(&self) -> Guard<Token> {
        self.token.load()
    }

    /// Returns the token to keep.
    pub(super) fn get(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    /// Returns the token if it is of a later generation. Compares the version, not the token: a
    /// service with a copy of the old token must see the new version too.
    pub(super) fn newer_than(&self, generation: u64) -> Option<Arc<Token>> {
        let newer = self.version.load(Ordering::Acquire) > generation;
        self.get().filter(|_| newer)
    }

    pub(super) fn publish(&self, token: &Arc<Token>) {
        self.token.store(Some(Arc::clone(token)));
        self.version.store(token.generation(), Ordering::Release);
    }
}

/// A copy of the current token for one service.
///
/// A clone starts empty, and the first request with each token reads the slot. So a service that is
/// cloned for every request makes no copies.
#[derive(Debug, Default)]
pub(crate) struct SlotReader {
    copy: Option<Arc<Token>>,
    /// The version at the last read of the slot.
    version: u64,
}

impl SlotReader {
    /// Returns this service's copy of the current token, from its second request per token on.
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
        // The token may be newer than the version, so use its own.
        self.version = token.generation();
        Some(self.copy.insert(token.copy()))
    }
}

impl Clone for SlotReader {
    fn clone(&self) -> Self {
        Self::default()
    }
}
