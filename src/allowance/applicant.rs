//! One cache's place in the line: waits for its turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::closures::Client;
use super::window::{Decision, Wish};
use super::{Allowance, Permit, Urgency};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// One cache's place in the line of an [`Allowance`], given up when dropped.
pub(crate) struct Applicant {
    allowance: Allowance,
    id: u64,
    client: Client,
    changed: Arc<Notify>,
}

/// What an [`Allowance`] should know of the cache that wants a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    /// The cache's last fetch failed for a lasting reason: it goes last.
    pub(crate) failing: bool,
    /// When the current token expires; `None` without a token.
    pub(crate) expires_at: Option<Instant>,
}

impl Applicant {
    pub(super) fn new(allowance: &Allowance) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);

        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            allowance: allowance.clone(),
            id,
            client: allowance.client.clone().unwrap_or(Client::Cache(id)),
            changed: Arc::default(),
        }
    }

    /// The allowance that this is a place of.
    pub(crate) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Takes one request of the window; waits until `deadline` if one is
    /// expected to be free by then. A change of `urgency` moves the place.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RateLimited`], at once, if none is expected to be free by
    /// the deadline: `retry_after` says when one is, and the place in the line
    /// is kept for that time and somewhat longer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it is ready, it has taken nothing.
    pub(crate) async fn acquire(
        &self,
        standing: Standing,
        mut urgency: watch::Receiver<Urgency>,
        deadline: Instant,
        clock: &Arc<dyn Clock>,
    ) -> Result<Permit, Error> {
        let shared = &self.allowance.shared;
        let _waiting = Waiting::enter(self, &**clock);
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look at the window: no change is missed.
            changed.as_mut().enable();
            let wish = Wish {
                applicant: self.id,
                client: &self.client,
                standing,
                urgency: *urgency.borrow_and_update(),
            };
            let until = {
                let mut state = shared.lock();
                // Read under the lock: the window sees one clock in order.
                let now = clock.now();
                match state.window.try_acquire(&wish, now) {
                    Decision::Granted(id) => {
                        let (shared, clock) = (Arc::clone(shared), Arc::clone(clock));
                        let sent = false;
                        return Ok(Permit {
                            shared,
                            clock,
                            id,
                            sent,
                        });
                    }
                    Decision::RetryAt(until) if until <= deadline => until,
                    Decision::RetryAt(until) => {
                        state.window.refuse(self.id, until, now);
                        return Err(rate_limited(until.saturating_duration_since(now)));
                    }
                }
            };
            let mut sleep = clock.sleep_until(until);
            let mut promoted = pin!(promotion(&mut urgency));
            poll_fn(|cx| {
                let woken = sleep.as_mut().poll(cx).is_ready()
                    || changed.as_mut().poll(cx).is_ready()
                    || promoted.as_mut().poll(cx).is_ready();
                if woken {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// The token endpoint answered 429: nothing more is sent for this client
    /// before `until`.
    pub(crate) fn refused(&self, until: Instant, clock: &dyn Clock) {
        let mut state = self.allowance.shared.lock();
        state.window.close(&self.client, until, clock.now());
    }
}

impl Drop for Applicant {
    fn drop(&mut self) {
        self.allowance.shared.lock().window.dequeue(self.id);
    }
}

/// Completes when a request begins to wait for the fetch.
async fn promotion(urgency: &mut watch::Receiver<Urgency>) {
    if urgency.changed().await.is_err() {
        // The cache has given the fetch up; its place in the line stays.
        std::future::pending().await
    }
}

/// The error of a request that was not sent, as there is no room for it yet.
pub(crate) fn rate_limited(retry_after: Duration) -> Error {
    Error::new(
        ErrorKind::RateLimited,
        "the allowance of token requests is used up; nothing was sent",
    )
    .with_retry_after(retry_after)
    .not_attempted()
}

/// Registered to be woken while an [`Applicant::acquire`] runs.
struct Waiting<'a> {
    applicant: &'a Applicant,
    clock: &'a dyn Clock,
}

impl<'a> Waiting<'a> {
    fn enter(applicant: &'a Applicant, clock: &'a dyn Clock) -> Self {
        let changed = Arc::clone(&applicant.changed);
        let mut state = applicant.allowance.shared.lock();
        state.waiting.insert(applicant.id, changed);
        drop(state);
        Self { applicant, clock }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.applicant.allowance.shared.lock();
        state.waiting.remove(&self.applicant.id);
        state.window.leave(self.applicant.id, self.clock.now());
        state.wake();
    }
}

#[cfg(test)]
#[path = "applicant_tests.rs"]
mod tests;
