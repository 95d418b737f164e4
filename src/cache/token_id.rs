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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::TokenCache;
    use crate::provider::provider_fn;
    use crate::token::AccessToken;

    #[test]
    fn a_2xx_is_evidence_at_first_and_after_a_401_wherever_the_requests_go() {
        let id = TokenId::<()>::new(&Weak::new(), 1);
        let sent_to = ["app.officernd.com", "a.example"].map(|host| id.sent_to("https", host));
        let all = || sent_to.iter().chain([&id]);
        for _ in 0..2 {
            assert!(all().all(|id| id.is_doubted()) && id.copy().is_doubted());
            id.doubt(false);
            assert!(all().all(|id| !id.is_doubted()) && !id.copy().is_doubted());
            id.doubt(true);
        }
    }

    #[tokio::test]
    async fn the_id_of_a_token_is_that_of_its_own_generation() {
        let life = Duration::from_secs(3600);
        let issue = move || std::future::ready(AccessToken::bearer("t", life));
        let cache = TokenCache::new(provider_fn(issue));
        let first = cache.token().await.unwrap();
        // The one that the cache tells of 401s.
        let current = cache.state.slot.get().unwrap();
        assert!(Arc::ptr_eq(&cache.id_of(&first), current.id()));
        let second = cache.refresh().await.unwrap();
        for token in [first, second] {
            assert_eq!(cache.id_of(&token).generation(), token.generation());
        }
    }
}
