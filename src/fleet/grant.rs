//! A granted fetch: one token request under the lease of the store.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::Failure;
use super::breaker::{Source, StoreUnavailable};
use super::entry::{Entry, StoredToken};
use super::key::KeyedProvider;
use super::reader::EntryReader;
use super::session::{Answer, Session, with_entry};
use super::store::{Claim, Finish};
use super::{Inner, LEASE_MARGIN, late};
use crate::allowance::Permit;
use crate::clock::{Age, Clock, later};
use crate::error::Error;
use crate::provider::Cause;
use crate::sync::Runtime;
use crate::token::AccessToken;

/// Sends the request and saves what it brings. `None`: claim again.
pub(super) async fn fetch<P: KeyedProvider>(
    session: &Session<P>,
    claim: &Claim,
    reader: &EntryReader,
    permit: Option<Permit>,
    claimed: &Age,
) -> Option<Result<AccessToken, Error>> {
    // A process that was stopped may have lost its lease: do not send.
    if session.age_of(claimed) >= LEASE_MARGIN {
        return None;
    }
    let permit = permit.map(|permit| session.cx.spend(permit));
    let guard = LeaseGuard::new(session, claim);
    let answer = session.mint().await;
    guard.disarm();
    drop(permit);
    let nothing_sent = match &answer.minted.result {
        Ok(_) => false,
        Err(error) => error.is_not_attempted(),
    };
    if !nothing_sent {
        session.inner.breaker.count(Source::Fetched);
    }
    let saved = save(session, claim, reader, &answer, nothing_sent).await;
    match &answer.minted.result {
        Ok(token) => {
            let life = token.expires_in();
            let life = life.saturating_sub(session.age_of(&answer.age));
            let minted_by = saved.then(|| claim.holder.as_str().to_owned());
            let token = session.hand_out(token, life, minted_by);
            if !saved {
                late::share_later(session, answer, claim);
            }
            Some(Ok(token))
        }
        Err(error) => wait_for_provider(session, error, nothing_sent).await,
    }
}

/// A provider that is itself shared may say that it has to wait.
async fn wait_for_provider<P: KeyedProvider>(
    session: &Session<P>,
    error: &Error,
    nothing_sent: bool,
) -> Option<Result<AccessToken, Error>> {
    let clock = session.cx.clock();
    let wait = error.retry_after().filter(|_| nothing_sent);
    let until = wait.map(|wait| later(clock.now(), wait.max(Duration::from_secs(1))));
    match until.filter(|until| *until < session.cx.deadline()) {
        Some(until) if session.inner.provider.spends_allowance() => {
            clock.sleep_until(until).await;
            None
        }
        _ => Some(Err(error.clone())),
    }
}

/// Whether the store has the token, or the failure.
async fn save<P: KeyedProvider>(
    session: &Session<P>,
    claim: &Claim,
    reader: &EntryReader,
    answer: &Answer,
    nothing_sent: bool,
) -> bool {
    let frees_after = match nothing_sent {
        true => Duration::ZERO,
        false => claim.limits.per,
    };
    let finish = Finish::new(
        claim.key.clone(),
        claim.window.clone(),
        claim.holder.clone(),
        frees_after,
    );
    let entry = entry(session, claim, reader, answer);
    let finish = with_entry(finish, &session.sealer, entry);
    let (store, breaker) = (&session.inner.store, &session.inner.breaker);
    let finished = breaker.run(session.limits(), "finish", || store.finish(&finish));
    matches!(finished.await, Ok(true)) && finish.entry.is_some()
}

/// What the store should hold now; `None` if the request was sent with other
/// credentials than the claim was made for, or says nothing about the endpoint.
fn entry<P: KeyedProvider>(
    session: &Session<P>,
    claim: &Claim,
    reader: &EntryReader,
    answer: &Answer,
) -> Option<Entry> {
    if answer.minted.material.as_ref() != Some(&session.material) {
        return None;
    }
    let (now, sealed_at) = (session.cx.clock().now(), session.cx.clock().wall());
    Some(match &answer.minted.result {
        Ok(token) => {
            let left = token.expires_in();
            let left = left.saturating_sub(session.age_of(&answer.age));
            Entry {
                sealed_at,
                token: Some(StoredToken {
                    token: token.clone(),
                    left: Some(left).filter(|left| !left.is_zero())?,
                    minted_by: claim.holder.as_str().to_owned(),
                    replaced_rejected: session.cx.cause() == Cause::Rejected,
                }),
                failure: None,
            }
        }
        Err(error) => Entry {
            sealed_at,
            token: reader.token(now),
            failure: Some(Failure::after(error, reader.failure(now))?),
        },
    })
}

/// Gives up the lease if the provider panics or the fetch is dropped, so that
/// waiting processes don't sit out the full lease.
struct LeaseGuard<P: KeyedProvider> {
    armed: Option<Release<P>>,
}

/// The provider with its store, the clock, and what to tell the store.
type Release<P> = (Arc<Inner<P>>, Arc<dyn Clock>, Finish);

impl<P: KeyedProvider> LeaseGuard<P> {
    fn new(session: &Session<P>, claim: &Claim) -> Self {
        let finish = Finish::new(
            claim.key.clone(),
            claim.window.clone(),
            claim.holder.clone(),
            claim.limits.per,
        );
        let (inner, clock) = (Arc::clone(&session.inner), Arc::clone(&session.cx.clock));
        Self {
            armed: Some((inner, clock, finish)),
        }
    }

    fn disarm(mut self) {
        self.armed = None;
    }
}

impl<P: KeyedProvider> Drop for LeaseGuard<P> {
    fn drop(&mut self) {
        let (Some((inner, clock, finish)), Ok(runtime)) = (self.armed.take(), Runtime::current())
        else {
            return;
        };
        runtime.spawn(async move {
            let deadline = later(clock.now(), Duration::from_secs(30));
            let limits = (&*clock, deadline);
            let finished = inner
                .breaker
                .run(limits, "finish", || inner.store.finish(&finish));
            // Otherwise the lease ends by itself.
            let _: Result<bool, StoreUnavailable> = finished.await;
        });
    }
}
