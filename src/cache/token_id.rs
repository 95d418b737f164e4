//! Identifies the token that a request carries.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use crate::sync::{AtomicBool, Ordering};

/// One token of one cache.
///
/// A request in flight keeps an `Arc` of it, so that a 401 finds its cache. It
/// keeps neither the token nor the cache alive. Each thread has a copy, alone
/// on its cache lines: a count that all threads write would cost more than the
/// rest of a hit.
#[repr(align(64))]
pub(crate) struct TokenId<C> {
    cache: Weak<C>,
    generation: u64,
    /// No response yet, or the last one that counts was a 401: a 2xx would be
    /// evidence that the token is good.
    doubted: AtomicBool,
    /// The origin of the requests that this id is of, if they can be redirected.
    sent_to: Option<Box<str>>,
    /// The ids for requests to such origins: OfficeRnD's own, made with the
    /// token so that no request pays for it, and the first other one.
    officernd: Option<Arc<Self>>,
    first_other: OnceLock<Arc<Self>>,
}

/// The origin of nearly all requests.
const OFFICERND: &str = "https://app.officernd.com";

impl<C> TokenId<C> {
    pub(super) fn new(cache: &Weak<C>, generation: u64) -> Arc<Self> {
        Self::for_all(cache, generation, true)
    }

    pub(super) fn copy(&self) -> Arc<Self> {
        Self::for_all(&self.cache, self.generation, self.is_doubted())
    }

    fn for_all(cache: &Weak<C>, generation: u64, doubted: bool) -> Arc<Self> {
        let id = |sent_to, officernd| {
            Arc::new(Self {
                cache: Weak::clone(cache),
                generation,
                doubted: AtomicBool::new(doubted),
                sent_to,
                officernd,
                first_other: OnceLock::new(),
            })
        };
        let officernd = id(Some(OFFICERND.into()), None);
        id(None, Some(officernd))
    }

    /// The id for requests to one origin. In place of the id and the origin, so
    /// that the response future keeps one pointer for every type of request.
    pub(crate) fn sent_to(&self, scheme: &str, authority: &str) -> Arc<Self> {
        let is_it = |id: &&Arc<Self>| id.may_be_of(scheme, authority);
        if let Some(officernd) = self.officernd.as_ref().filter(is_it) {
            return Arc::clone(officernd);
        }
        let copy = || {
            Arc::new(Self {
                cache: Weak::clone(&self.cache),
                generation: self.generation,
                doubted: AtomicBool::new(self.is_doubted()),
                sent_to: Some(format!("{scheme}://{authority}").into()),
                officernd: None,
                first_other: OnceLock::new(),
            })
        };
        let first = self.first_other.get_or_init(copy);
        match is_it(&first) {
            true => Arc::clone(first),
            false => copy(),
        }
    }

    /// Whether the token may have been sent to this origin.
    pub(crate) fn may_be_of(&self, scheme: &str, authority: &str) -> bool {
        let Some(origin) = &self.sent_to else {
            return true;
        };
        let rest = origin.strip_prefix(scheme);
        rest.and_then(|rest| rest.strip_prefix("://")) == Some(authority)
    }

    pub(super) fn doubt(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Relaxed);
        for id in self.officernd.iter().chain(self.first_other.get()) {
            id.doubt(doubted);
        }
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
