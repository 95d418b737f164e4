//! A token that was fetched without the store is left there when the store
//! works again.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Inner;
use super::breaker::StoreUnavailable;
use super::entry::{Entry, StoredToken};
use super::key::KeyedProvider;
use super::seal::Sealer;
use super::session::{Answer, Session, with_entry};
use super::store::{Claim, Claimed, Finish};
use crate::clock::{Age, Clock, later};
use crate::provider::Cause;
use crate::sync::Runtime;
use crate::token::AccessToken;

/// The token to leave; one task works for it.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Arc<Late>>>);

struct Late {
    sealer: Sealer,
    claim: Claim,
    token: AccessToken,
    age: Age,
    replaced_rejected: bool,
}

enum Progress {
    Done,
    TryAgain(Duration),
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Late>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the task, or gives the running one this token.
pub(super) fn share_later<P: KeyedProvider>(session: &Session<P>, answer: Answer, claim: &Claim) {
    let (Ok(token), Some(material)) = (answer.minted.result, answer.minted.material) else {
        return;
    };
    let Ok(runtime) = Runtime::current() else {
        return;
    };
    let sealer = material.sealer();
    let mut claim = claim.clone();
    claim.key = sealer.name();
    claim.window = material.window();
    claim.seen = None;
    claim.may_fetch = true;
    // The request was sent: it counts, whether there is a place or not.
    claim.limits.requests = claim.limits.requests.map(|_| u32::MAX);
    let late = Late {
        sealer,
        claim,
        token,
        age: answer.age,
        replaced_rejected: session.cx.cause() == Cause::Rejected,
    };
    let before = session.inner.late.lock().replace(Arc::new(late));
    if before.is_none() {
        let inner = Arc::downgrade(&session.inner);
        let clock = Arc::clone(&session.cx.clock);
        runtime.spawn(share(inner, clock));
    }
}

async fn share<P: KeyedProvider>(inner: Weak<Inner<P>>, clock: Arc<dyn Clock>) {
    let _ended = Ended(Weak::clone(&inner));
    loop {
        // Spread processes that all saw the store fail in one instant.
        let spread = Duration::from_millis(fastrand::u64(0..500));
        let Some(this) = inner.upgrade() else {
            return;
        };
        let now = clock.now();
        let until = later(this.breaker.open_until().unwrap_or(now), spread);
        drop(this);
        clock.sleep_until(until).await;
        let Some(this) = inner.upgrade() else {
            return;
        };
        let Some(late) = this.late.lock().clone() else {
            return;
        };
        let pause = match leave(&this, &*clock, &late).await {
            Ok(Progress::Done) => {
                let mut slot = this.late.lock();
                if slot.take_if(|now| Arc::ptr_eq(now, &late)).is_some() {
                    return;
                }
                Duration::ZERO
            }
            Ok(Progress::TryAgain(after)) => after,
            Err(StoreUnavailable) => Duration::from_secs(1),
        };
        drop(this);
        clock.sleep_until(later(clock.now(), pause)).await;
    }
}

/// Saves the token, unless the store has one that is as good.
async fn leave<P>(
    inner: &Inner<P>,
    clock: &dyn Clock,
    late: &Late,
) -> Result<Progress, StoreUnavailable> {
    /// Entries that are of no use, one after the other.
    const MAX_ENTRIES: usize = 3;

    let mut claim = late.claim.clone();
    let deadline = later(clock.now(), Duration::from_secs(30));
    let limits = (clock, deadline);
    for _ in 0..MAX_ENTRIES {
        let age = late.age.at(clock.now(), clock.wall());
        let left = late.token.expires_in().saturating_sub(age);
        if left.is_zero() {
            return Ok(Progress::Done);
        }
        let claimed = inner
            .breaker
            .run(limits, "claim", || inner.store.claim(&claim));
        match claimed.await? {
            Claimed::Entry(stored) => {
                let plain = late.sealer.open(&stored.sealed);
                let entry =
                    plain.and_then(|plain| Entry::decode(&plain, clock.wall(), stored.expires_in));
                let theirs = entry.and_then(|(entry, age)| Some((entry.token?, age)));
                if theirs.is_some_and(|(theirs, age)| theirs.left.saturating_sub(age) >= left) {
                    return Ok(Progress::Done);
                }
                claim.seen = Some(stored.id);
            }
            Claimed::Granted => {
                let entry = Entry {
                    sealed_at: clock.wall(),
                    token: Some(StoredToken {
                        token: late.token.clone(),
                        left,
                        minted_by: claim.holder.as_str().to_owned(),
                        replaced_rejected: late.replaced_rejected,
                    }),
                    failure: None,
                };
                let frees_after = claim.limits.per.saturating_sub(age);
                let holder = claim.holder.clone();
                let finish = Finish::new(claim.key, claim.window, holder, frees_after);
                let finish = with_entry(finish, &late.sealer, Some(entry));
                let finished = inner
                    .breaker
                    .run(limits, "finish", || inner.store.finish(&finish));
                finished.await?;
                return Ok(Progress::Done);
            }
            // Another process fetches a newer one; or its lease ends.
            Claimed::Leased(left) => return Ok(Progress::TryAgain(left)),
            Claimed::RateLimited(wait) => {
                return Ok(Progress::TryAgain(wait.max(Duration::from_secs(1))));
            }
        }
    }
    Ok(Progress::Done)
}

/// Makes room for the next task when this one ends, however it ends.
struct Ended<P>(Weak<Inner<P>>);

impl<P> Drop for Ended<P> {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.late.lock().take();
        }
    }
}
