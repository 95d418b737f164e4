//! A granted fetch: one token request under the lease of the store.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::Failure;
use super::breaker::{Source, StoreUnavailable};
use super::claim::{Claim, Finish};
use super::entry::{Entry, StoredToken};
use super::key::KeyedProvider;
use super::reader::EntryReader;
use super::session::{Answer, Session, with_entry};
use super::store::TokenStore;
use super::{Inner, LEASE_MARGIN, late};
use crate::clock::{Age, Clock, later};
use crate::error::Error;
use crate::provider::Cause;
use crate::rate_limit::Permit;
use crate::sync::Runtime;
use crate::token::AccessToken;

/// Sends the request and saves what it brings. `None`: claim again.
pub(super) async fn fetch<P: KeyedProvider, S: TokenStore>(
    session: &Session<P, S>,
    claim: &Claim,
    reader: &EntryReader,
    place: Permit,
    claimed: &Age,
) -> Option<Result<AccessToken, Error>> {
    // A process that was stopped may have lost its lease: do not send.
    if session.age_of(claimed) >= LEASE_MARGIN {
        return None;
    }
    let guard = LeaseGuard::new(session, claim);
    let answer = session.mint(place).await;
    guard.disarm();
    let nothing_sent = answer.minted.result.is_err() && session.cx.sent_at().is_none();
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
        Err(error) => Some(Err(error.clone())),
    }
}

/// Whether the store has the token, or the failure.
async fn save<P: KeyedProvider, S: TokenStore>(
    session: &Session<P, S>,
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
    let finished = breaker.run(session.store(), "finish", || store.finish(&finish));
    matches!(finished.await, Ok(true)) && finish.entry.is_some()
}

/// What the store should hold now; `None` if the request was sent with other
/// credentials than the claim was made for, or says nothing about the endpoint.
fn entry<P: KeyedProvider, S: TokenStore>(
    session: &Session<P, S>,
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
struct LeaseGuard<P: KeyedProvider, S: TokenStore> {
    armed: Option<Release<P, S>>,
}

/// The provider with its store, the clock, and what to tell the store.
type Release<P, S> = (Arc<Inner<P, S>>, Arc<dyn Clock>, Finish);

impl<P: KeyedProvider, S: TokenStore> LeaseGuard<P, S> {
    fn new(session: &Session<P, S>, claim: &Claim) -> Self {
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

impl<P: KeyedProvider, S: TokenStore> Drop for LeaseGuard<P, S> {
    fn drop(&mut self) {
        let (Some((inner, clock, finish)), Ok(runtime)) = (self.armed.take(), Runtime::current())
        else {
            return;
        };
        runtime.spawn(async move {
            let deadline = later(clock.now(), Duration::from_secs(30));
            let store = (&inner.store, &*clock, deadline);
            let finished = inner
                .breaker
                .run(store, "finish", || inner.store.finish(&finish));
            // Otherwise the lease ends by itself.
            let _: Result<bool, StoreUnavailable> = finished.await;
        });
    }
}
