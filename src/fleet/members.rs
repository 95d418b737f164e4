//! The fleet's allowance: a window in the store, behind the process's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Inner, LEASE_SLACK};
use crate::allowance::Urgency;
use crate::allowance::rate_limited;
use crate::clock::later;
use crate::error::Error;
use crate::fleet::{Holder, Spent, StoreKey, Terms, TokenStore};
use crate::provider::{FetchContext, Gate};

/// Stands before every token request of one fetch.
pub(super) struct Fleet<P, S> {
    inner: Arc<Inner<P, S>>,
    window: StoreKey,
    /// What this fetch has spent, or may have.
    tickets: Mutex<Vec<Holder>>,
}

impl<P, S: TokenStore> Fleet<P, S> {
    pub(super) fn new(inner: &Arc<Inner<P, S>>, window: StoreKey) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            window,
            tickets: Mutex::default(),
        })
    }

    /// The fetch is over: its places are free one window from now.
    pub(super) async fn settle(&self, cx: &FetchContext) {
        if let Some((_, per)) = cx.applicant.allowance().limit() {
            self.free_in(per, cx).await;
        }
    }

    /// Nothing was sent: its places are free at once.
    pub(super) async fn give_back(&self, cx: &FetchContext) {
        self.free_in(Duration::ZERO, cx).await;
    }

    async fn free_in(&self, per: Duration, cx: &FetchContext) {
        let tickets = {
            let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tickets)
        };
        for ticket in tickets {
            let settle = self.inner.store.settle(&self.window, &ticket, per);
            if self
                .inner
                .guard
                .run(cx.clock(), "settle", settle)
                .await
                .is_err()
            {
                // They are free all the same, a little later.
                return;
            }
        }
    }

    async fn spend(&self, cx: &FetchContext) -> Result<(), Error> {
        /// A place may be free earlier than was said: when it is settled.
        const LOOK: Duration = Duration::from_secs(1);

        let Some((requests, per)) = cx.applicant.allowance().limit() else {
            return Ok(());
        };
        let Ok(ticket) = Holder::random() else {
            return Ok(());
        };
        {
            // Before it is spent: what is dropped on the way is settled too.
            let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            tickets.push(ticket.clone());
        }
        let terms = Terms::new(
            requests,
            per,
            cx.fetch_timeout().saturating_add(LEASE_SLACK),
        );
        loop {
            let clock = cx.clock();
            let spend = self.inner.store.spend(&self.window, &ticket, terms);
            let Ok(Spent::Wait(wait)) = self.inner.guard.run(clock, "spend", spend).await else {
                // Granted; or no store, and then there is the process's own.
                return Ok(());
            };
            let now = clock.now();
            if later(now, wait) > cx.deadline() {
                return Err(rate_limited(wait));
            }
            let pause = match cx.urgency() {
                Urgency::Waiting => wait.min(LOOK),
                // Requests that wait go first, in whatever process they are.
                Urgency::Background => wait.min(LOOK).saturating_add(LOOK),
            };
            let until = later(now, pause);
            if until > cx.deadline() {
                return Err(rate_limited(wait));
            }
            clock.sleep_until(until).await;
        }
    }
}

impl<P: Send + Sync + 'static, S: TokenStore> Gate for Fleet<P, S> {
    fn pass<'a>(
        &'a self,
        cx: &'a FetchContext,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(self.spend(cx))
    }
}
