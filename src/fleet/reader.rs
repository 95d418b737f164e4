//! What a stored entry means for one fetch.

use std::time::{Duration, Instant};

use super::acceptance::{Candidate, CurrentToken, Verdict};
use super::backoff::Failure;
use super::breaker::Source;
use super::entry::{Entry, StoredToken};
use super::key::KeyedProvider;
use super::session::Session;
use super::store::StoredEntry;
use crate::error::{Error, ErrorKind};
use crate::observability;
use crate::token::AccessToken;

/// Clocks that differ by more are worth a warning.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Reads entries, and remembers the last one that was of no use.
#[derive(Default)]
pub(super) struct EntryReader {
    known: Option<Known>,
}

struct Known {
    entry: Entry,
    age: Duration,
    opened_at: Instant,
}

impl EntryReader {
    /// The token or the failure that the entry brings; `None` if this fetch
    /// cannot use it.
    pub(super) fn read<P: KeyedProvider>(
        &mut self,
        session: &Session<P>,
        stored: &StoredEntry,
    ) -> Option<Result<AccessToken, Error>> {
        let clock = session.cx.clock();
        let (now, wall) = (clock.now(), clock.wall());
        let opened = session.sealer.open(&stored.sealed);
        let opened = opened.and_then(|plain| Entry::decode(&plain, wall, stored.expires_in));
        let Some((entry, age)) = opened else {
            observability::store_entry_unusable();
            return None;
        };
        if let Some(token) = &entry.token {
            let by_store = entry.life().saturating_sub(stored.expires_in);
            let left = token.left.saturating_sub(age);
            if left.is_zero() && token.left > by_store.saturating_add(MAX_CLOCK_SKEW) {
                observability::store_clock_differs(age.saturating_sub(by_store));
            }
            if let Some(result) = read_token(session, token, left) {
                return Some(result);
            }
        }
        let failure = entry.failure.map(|failure| (failure, failure.left(age)));
        if let Some((failure, left)) = failure.filter(|(_, left)| !left.is_zero()) {
            return Some(Err(failure.error(left)));
        }
        self.known = Some(Known {
            entry,
            age,
            opened_at: now,
        });
        None
    }

    /// The last failure, and how long ago it was saved.
    pub(super) fn failure(&self, now: Instant) -> Option<(Failure, Duration)> {
        let known = self.known.as_ref()?;
        Some((known.entry.failure?, known.age(now)))
    }

    /// The token that still lives.
    pub(super) fn token(&self, now: Instant) -> Option<StoredToken> {
        let known = self.known.as_ref()?;
        let mut token = known.entry.token.clone()?;
        token.left = token.left.saturating_sub(known.age(now));
        (!token.left.is_zero()).then_some(token)
    }
}

impl Known {
    fn age(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.opened_at);
        self.age.saturating_add(since)
    }
}

fn read_token<P: KeyedProvider>(
    session: &Session<P>,
    stored: &StoredToken,
    left: Duration,
) -> Option<Result<AccessToken, Error>> {
    let candidate = Candidate {
        left,
        granted: stored.token.expires_in(),
        replaced_rejected: stored.replaced_rejected,
        current: current(session, stored, left),
    };
    match candidate.verdict(session.cx.cause()) {
        Verdict::Refuse => None,
        Verdict::KeepFor(wait) => Some(Err(just_replaced().with_retry_after(wait))),
        Verdict::Accept => {
            let life = candidate.safe_life();
            session.inner.breaker.count(Source::Taken);
            observability::token_shared(session.cx.cause().as_str(), life);
            let minted_by = Some(stored.minted_by.clone());
            Some(Ok(session.hand_out(&stored.token, life, minted_by)))
        }
    }
}

/// The token of the cache, beside the stored one.
fn current<P: KeyedProvider>(
    session: &Session<P>,
    stored: &StoredToken,
    left: Duration,
) -> Option<CurrentToken> {
    let previous = session.cx.previous.as_ref()?;
    let header = previous.token.header_value();
    let clock = session.cx.clock();
    let last = session.inner.last();
    let last = last.as_ref().filter(|last| last.header == header);
    let is_older = match last.and_then(|last| last.minted_by.as_ref()) {
        // Only the holder of a lease saves: another id is a newer token.
        Some(minted_by) => *minted_by != stored.minted_by,
        None => {
            let age = stored.token.expires_in().saturating_sub(left);
            let born = clock.wall().checked_sub(age);
            born.is_some_and(|born| born > previous.landed_by)
        }
    };
    Some(CurrentToken {
        left: previous.ends_at.saturating_duration_since(clock.now()),
        same: header == stored.token.header_value(),
        is_older,
    })
}

fn just_replaced() -> Error {
    Error::new(
        ErrorKind::RateLimited,
        "a rejected token has just been replaced by this one; nothing was sent",
    )
    .not_attempted()
}
