//! The right to fetch, for a while.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use super::breaker::Aside;
use super::key::KeyedProvider;
use super::{Errand, Inner, LEASE_SLACK};
use crate::clock::{Clock, later};
use crate::fleet::{Holder, LONGEST_LEASE, Lease, StoreKey, TokenStore};
use crate::sync::Runtime;

/// Renewed once this old, so that a whole fetch fits into what is left.
const RENEW: Duration = Duration::from_secs(2);

pub(super) struct Leased<P: KeyedProvider, S: TokenStore> {
    inner: Arc<Inner<P, S>>,
    clock: Arc<dyn Clock>,
    key: StoreKey,
    holder: Holder,
    limit: Duration,
    /// Before it was asked for: by then it had not begun.
    since: Instant,
    since_wall: SystemTime,
    ours: bool,
}

pub(super) enum Turn<P: KeyedProvider, S: TokenStore> {
    Ours(Leased<P, S>),
    /// Another's. Look again then.
    Later(Instant),
}

impl<P: KeyedProvider, S: TokenStore> Leased<P, S> {
    pub(super) async fn take(errand: &Errand<'_, P, S>) -> Result<Turn<P, S>, Aside> {
        let limit = errand.cx.fetch_timeout().saturating_add(LEASE_SLACK);
        let mut lease = Self {
            inner: Arc::clone(errand.inner),
            clock: Arc::clone(&errand.cx.clock),
            key: errand.token.clone(),
            holder: Holder::random().map_err(|_| Aside)?,
            limit: limit.min(LONGEST_LEASE),
            since: errand.start,
            since_wall: errand.cx.clock.wall(),
            // Also if the answer gets lost.
            ours: true,
        };
        let Lease::Busy(left) = lease.acquire().await? else {
            return Ok(Turn::Ours(lease));
        };
        lease.ours = false;
        let pause = Duration::from_millis(fastrand::u64(50..200));
        Ok(Turn::Later(later(lease.clock.now(), pause.min(left))))
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Whether who took over may be done by now.
    pub(super) fn is_over(&self) -> bool {
        self.age() >= self.limit
    }

    /// By the clock that says most: the monotonic one stands still while a
    /// machine is suspended.
    fn age(&self) -> Duration {
        let age = self.clock.now().saturating_duration_since(self.since);
        let wall = self.clock.wall().duration_since(self.since_wall);
        age.max(wall.unwrap_or_default())
    }

    /// Renews the lease for as long as `work` takes; at the end a whole fetch
    /// fits into it. `None`: it is another's.
    pub(super) async fn keep_for<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Aside> {
        let mut work = pin!(work);
        loop {
            let mut renewal = self.clock.sleep_until(later(self.since, RENEW));
            let done = poll_fn(|cx| {
                if let Poll::Ready(output) = work.as_mut().poll(cx) {
                    return Poll::Ready(Some(output));
                }
                renewal.as_mut().poll(cx).map(|()| None)
            });
            let done = done.await;
            if self.age() >= RENEW && self.acquire().await? != Lease::Held {
                self.ours = false;
                return Ok(None);
            }
            if done.is_some() {
                return Ok(done);
            }
        }
    }

    pub(super) async fn release(mut self) {
        self.ours = false;
        release(&self.inner, &*self.clock, &self.key, &self.holder).await;
    }

    async fn acquire(&mut self) -> Result<Lease, Aside> {
        let (since, since_wall) = (self.clock.now(), self.clock.wall());
        let acquire = self
            .inner
            .store
            .acquire(&self.key, &self.holder, self.limit);
        let lease = self
            .inner
            .guard
            .run(&*self.clock, "acquire", acquire)
            .await?;
        if lease == Lease::Held {
            (self.since, self.since_wall) = (since, since_wall);
        }
        Ok(lease)
    }
}

/// Who waits should not have to wait for the end of a lease that nobody needs.
impl<P: KeyedProvider, S: TokenStore> Drop for Leased<P, S> {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let Ok(runtime) = Runtime::current() else {
            return;
        };
        let (inner, clock) = (Arc::clone(&self.inner), Arc::clone(&self.clock));
        let (key, holder) = (self.key.clone(), self.holder.clone());
        runtime.spawn(async move { release(&inner, &*clock, &key, &holder).await });
    }
}

async fn release<P, S: TokenStore>(
    inner: &Inner<P, S>,
    clock: &dyn Clock,
    key: &StoreKey,
    holder: &Holder,
) {
    let release = inner.store.release(key, holder);
    // It ends by itself.
    let _ = inner.guard.run(clock, "release", release).await;
}
