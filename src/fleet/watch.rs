//! Waiting for a change of the key.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::claim::{Claim, StoredEntry};
use super::key::KeyedProvider;
use super::reservation::Reservation;
use super::session::Session;
use super::store::{TokenStore, poll_interval};
use crate::clock::later;

/// A process that waits claims again after this at the latest, because a
/// notification can be lost.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);

/// A future of [`TokenStore::changed`].
pub(super) struct Watch {
    changed: Pin<Box<dyn Future<Output = Option<StoredEntry>> + Send>>,
    round: u32,
}

impl Watch {
    /// Begins to watch the key. A watch that ends at once would let the loop
    /// spin: a pause takes its place.
    pub(super) async fn begin<P: KeyedProvider, S: TokenStore>(
        session: &Session<P, S>,
        claim: &Claim,
        round: u32,
    ) -> Self {
        let (inner, claim) = (Arc::clone(&session.inner), claim.clone());
        let mut changed: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(async move { inner.store.changed(&claim, round).await });
        let ended = poll_fn(|cx| Poll::Ready(changed.as_mut().poll(cx).is_ready())).await;
        if ended {
            let clock = Arc::clone(&session.cx.clock);
            let until = later(clock.now(), poll_interval(round));
            changed = Box::pin(async move {
                clock.sleep_until(until).await;
                None
            });
        }
        Self { changed, round }
    }

    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Waits for a change of the key, for the end of `wait`, or for a permit if
    /// it was missing. `Some` if the watch has ended.
    pub(super) async fn wait<P: KeyedProvider, S: TokenStore>(
        &mut self,
        session: &Session<P, S>,
        wait: Duration,
        reservation: &mut Reservation,
    ) -> Option<Option<StoredEntry>> {
        reservation.release();
        let clock = session.cx.clock();
        // Spread processes that all wait for the end of one lease.
        let spread = Duration::from_millis(fastrand::u64(50..500));
        let until = later(clock.now(), wait.saturating_add(spread).min(MAX_WAIT));
        let mut timer = clock.sleep_until(until.min(session.cx.deadline()));
        poll_fn(|cx| {
            if let Poll::Ready(entry) = self.changed.as_mut().poll(cx) {
                return Poll::Ready(Some(entry));
            }
            if reservation.poll_pending(cx).is_ready() {
                return Poll::Ready(None);
            }
            timer.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}
