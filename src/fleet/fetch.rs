//! One fetch, from the first look into the store to the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Inner;
use super::acceptance::{self, Held, Offer};
use super::breaker::{Aside, Source};
use super::entry::{Failure, TokenEntry};
use super::key::KeyedProvider;
use super::lease::{Leased, Turn};
use super::members::Fleet;
use super::store::TokenStore;
use super::store_key::{self, StoreKey};
use crate::allowance::Permit;
use crate::clock::{later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::fleet::seal::{Purpose, Sealer};
use crate::observability;
use crate::provider::{Cause, FetchContext};
use crate::sync::Runtime;
use crate::token::AccessToken;

/// One fetch.
pub(super) struct Errand<'a, P, S> {
    pub(super) inner: &'a Arc<Inner<P, S>>,
    pub(super) cx: FetchContext,
    /// The cache counts a token's life from here.
    pub(super) start: Instant,
    sealer: Sealer,
    pub(super) token: StoreKey,
    failure: StoreKey,
    window: StoreKey,
    /// Whoever waits looks at the entry often.
    told_of_entry: AtomicBool,
}

impl<'a, P: KeyedProvider, S: TokenStore> Errand<'a, P, S> {
    pub(super) async fn new(inner: &'a Arc<Inner<P, S>>, cx: FetchContext) -> Result<Self, Error> {
        let start = cx.clock().now();
        let material = inner.provider.key_material().await?;
        let sealer = material.sealer();
        Ok(Self {
            inner,
            cx,
            start,
            token: sealer.name(Purpose::Token),
            failure: sealer.name(Purpose::Failure),
            window: material.window(),
            told_of_entry: AtomicBool::new(false),
            sealer,
        })
    }

    /// Takes a sibling's token, or fetches one under the lease.
    pub(super) async fn through_the_store(&self) -> Result<Result<AccessToken, Error>, Aside> {
        loop {
            if let Some(answer) = self.taken().await? {
                return Ok(answer);
            }
            let mut lease = match Leased::take(self).await? {
                Turn::Ours(lease) => lease,
                Turn::Later(at) if at <= self.cx.deadline() => {
                    self.cx.clock().sleep_until(at).await;
                    continue;
                }
                Turn::Later(_) => return Ok(Err(waited_in_vain())),
            };
            // The one before us may have left it between the two questions.
            if let Some(answer) = self.taken().await? {
                lease.release().await;
                return Ok(answer);
            }
            let earlier = self.failure().await?;
            if let Some((failure, left)) = earlier.filter(|(_, left)| !left.is_zero()) {
                lease.release().await;
                return Ok(Err(failure.error(left)));
            }
            let fleet = Fleet::new(self.inner, self.window.clone());
            let cx = self.cx.clone().behind(fleet.clone());
            let permit = match lease.keep_for(self.permit(&cx)).await? {
                Some(Ok(permit)) => permit,
                Some(Err(error)) => {
                    lease.release().await;
                    fleet.give_back(&cx).await;
                    return Ok(Err(error));
                }
                // We stood still for so long that the lease is another's.
                None => {
                    fleet.give_back(&cx).await;
                    continue;
                }
            };
            let result = self.fetched(&cx).await;
            self.inner.guard.count(Source::Fetched);
            let earlier = earlier.map(|(failure, _)| failure);
            self.publish(&result, earlier, &lease).await;
            drop(permit);
            // The token is there; nobody waits for the tidying up.
            let closing = async move {
                lease.release().await;
                fleet.settle(&cx).await;
            };
            match Runtime::current() {
                Ok(runtime) => runtime.spawn(closing),
                Err(_) => closing.await,
            }
            return Ok(result.map(|fetched| self.counted(&fetched)));
        }
    }

    /// As without a store, but for leaving the token there if it is back.
    pub(super) async fn directly(&self) -> Result<AccessToken, Error> {
        self.inner.guard.count(Source::Direct);
        let permit = self.permit(&self.cx).await?;
        let result = self.fetched(&self.cx).await;
        drop(permit);
        let fetched = result?;
        if let Ok(holder) = store_key::Holder::random() {
            self.leave(&fetched, &holder).await;
        }
        Ok(self.counted(&fetched))
    }

    async fn permit(&self, cx: &FetchContext) -> Result<Option<Permit>, Error> {
        if self.inner.provider.spends_allowance() {
            return Ok(None);
        }
        cx.permit().await.map(Some)
    }

    async fn fetched(&self, cx: &FetchContext) -> Result<Fetched, Error> {
        let clock = cx.clock();
        let (sent, born) = (clock.now(), clock.wall());
        let until = later(sent, cx.fetch_timeout());
        match timeout_at(clock, until, self.inner.provider.fetch(cx.clone())).await {
            Some(token) => Ok(Fetched {
                entry: TokenEntry {
                    token: token?,
                    born,
                    heals: cx.cause() == Cause::Rejected,
                },
                sent,
            }),
            None => Err(Error::new(
                ErrorKind::Timeout,
                "the token endpoint did not answer within the fetch timeout",
            )),
        }
    }

    /// The token with its life counted from the start of this errand, which is
    /// what the cache does: waiting for a turn is not ageing.
    fn counted(&self, fetched: &Fetched) -> AccessToken {
        let waited = fetched.sent.saturating_duration_since(self.start);
        let life = fetched.entry.token.expires_in();
        fetched.entry.token.with_life(life.saturating_add(waited))
    }

    /// A sibling's token, if there is one that will do; or that it has to.
    async fn taken(&self) -> Result<Option<Result<AccessToken, Error>>, Aside> {
        let clock = self.cx.clock();
        let load = self.inner.store.load(&self.token);
        let Some(stored) = self.inner.guard.run(clock, "load", load).await? else {
            return Ok(None);
        };
        let opened = self.sealer.open(Purpose::Token, &stored.entry);
        let Some(entry) = opened.and_then(|plain| TokenEntry::decode(&plain)) else {
            // Garbled, put here by somebody else, or of another version.
            if !self.told_of_entry.swap(true, Ordering::Relaxed) {
                observability::store_entry_unusable();
            }
            return Ok(None);
        };
        let (now, wall) = (clock.now(), clock.wall());
        let granted = entry.token.expires_in();
        let left = entry.left(wall).min(stored.expires_in);
        let held = self.cx.previous.as_ref().map(|previous| Held {
            left: previous.ends_at.saturating_duration_since(now),
            same: previous.token.header_value() == entry.token.header_value(),
            asked_since: entry.born > previous.landed_by,
        });
        let offer = Offer {
            left,
            granted,
            held,
        };
        let cause = self.cx.cause();
        if let Some(wait) = acceptance::put_off(cause, offer, entry.heals) {
            return Ok(Some(Err(just_replaced().with_retry_after(wait))));
        }
        if !acceptance::takes(cause, offer) {
            return Ok(None);
        }
        let left = acceptance::safe(left, granted);
        self.inner.guard.count(Source::Taken);
        observability::token_shared(cause.as_str(), left);
        let waited = now.saturating_duration_since(self.start);
        let life = left.saturating_add(waited);
        Ok(Some(Ok(entry.token.with_life(life))))
    }

    /// The last failure of a sibling, and how long it still holds.
    async fn failure(&self) -> Result<Option<(Failure, Duration)>, Aside> {
        let clock = self.cx.clock();
        let load = self.inner.store.load(&self.failure);
        let Some(stored) = self.inner.guard.run(clock, "load", load).await? else {
            return Ok(None);
        };
        let opened = self.sealer.open(Purpose::Failure, &stored.entry);
        let failure = opened.and_then(|plain| Failure::decode(&plain));
        Ok(failure.map(|failure| (failure, failure.left(clock.wall(), stored.expires_in))))
    }

    /// Leaves the result for the siblings. If that fails, the result is still
    /// good for this process. One that comes after the lease's end is not
    /// left: who took over may have put a newer one there.
    async fn publish(
        &self,
        result: &Result<Fetched, Error>,
        earlier: Option<Failure>,
        lease: &Leased<P, S>,
    ) {
        if lease.is_over() {
            return;
        }
        let error = match result {
            Ok(fetched) => return self.leave(fetched, lease.holder()).await,
            Err(error) => error,
        };
        let wall = self.cx.clock().wall();
        if let Some(failure) = Failure::after(error, earlier, wall) {
            let (plain, life) = (failure.encode(), failure.life(wall));
            self.save(Purpose::Failure, &plain, life, lease.holder())
                .await;
        }
    }

    async fn leave(&self, fetched: &Fetched, holder: &store_key::Holder) {
        let clock = self.cx.clock();
        let age = clock.now().saturating_duration_since(fetched.sent);
        let life = fetched.entry.token.expires_in().saturating_sub(age);
        if !life.is_zero() {
            let plain = fetched.entry.encode();
            self.save(Purpose::Token, &plain, life, holder).await;
        }
    }

    async fn save(
        &self,
        purpose: Purpose,
        plain: &[u8],
        life: Duration,
        holder: &store_key::Holder,
    ) {
        let name = match purpose {
            Purpose::Token => &self.token,
            Purpose::Failure => &self.failure,
        };
        let Ok(nonce) = store_key::random() else {
            return;
        };
        let Some(envelope) = self.sealer.seal(purpose, nonce, plain) else {
            return;
        };
        let save = self.inner.store.save(name, &envelope, life, holder);
        // What went wrong is told; nothing depends on it.
        let _ = self.inner.guard.run(self.cx.clock(), "save", save).await;
    }
}

/// A token from the endpoint, and when it was asked for.
struct Fetched {
    entry: TokenEntry,
    sent: Instant,
}

fn waited_in_vain() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "a sibling's token request was not over in time",
    )
}

fn just_replaced() -> Error {
    Error::new(
        ErrorKind::RateLimited,
        "a rejected token has just been replaced by this one; nothing was sent",
    )
    .not_attempted()
}
