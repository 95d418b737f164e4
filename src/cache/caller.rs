//! A caller that waits for a token.

use std::time::{Duration, Instant};

/// A caller that wants a token, and all that it remembers while it waits.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) deadline: Instant,
    /// Only a token of a later generation will do.
    pub(super) newer_than: Option<u64>,
    /// Only a token with so much life left will do.
    pub(super) min_life: Duration,
    /// The fetch that it last waited for.
    pub(super) waited_for: Option<u64>,
    /// Fetches that ended with neither a usable token nor an error.
    pub(super) lost_fetches: u32,
}

impl Caller {
    /// A caller that takes any living token, and waits for it until `deadline`.
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            newer_than: None,
            min_life: Duration::ZERO,
            waited_for: None,
            lost_fetches: 0,
        }
    }

    /// A caller that takes only a token with so much life left.
    pub(super) fn for_life(min_life: Duration, deadline: Instant) -> Self {
        Self {
            min_life,
            ..Self::until(deadline)
        }
    }

    /// A caller that takes only a token of a later generation.
    pub(super) fn newer_than(generation: u64, deadline: Instant) -> Self {
        Self {
            newer_than: Some(generation),
            ..Self::until(deadline)
        }
    }
}
