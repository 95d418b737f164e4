//! What one fetch works with: the provider, the store, its terms and its keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claim::Finish;
use super::entry::Entry;
use super::key::{KeyMaterial, KeyedProvider, Minted};
use super::seal::Sealer;
use super::store::TokenStore;
use super::{Inner, LastToken, name};
use crate::clock::{Age, Clock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::provider::FetchContext;
use crate::rate_limit::Permit;
use crate::token::AccessToken;

/// The time limit of the look at the credentials after a token request.
const SECOND_LOOK: Duration = Duration::from_secs(1);

pub(super) struct Session<P, S> {
    pub(super) inner: Arc<Inner<P, S>>,
    pub(super) cx: FetchContext,
    /// The cache counts a token's life from here.
    started_at: Instant,
    pub(super) material: KeyMaterial,
    pub(super) sealer: Sealer,
}

/// A token request that was sent, and what it brought.
pub(super) struct Answer {
    pub(super) minted: Minted,
    /// Since right before it was sent.
    pub(super) age: Age,
}

impl<P: KeyedProvider, S: TokenStore> Session<P, S> {
    pub(super) async fn new(inner: &Arc<Inner<P, S>>, cx: FetchContext) -> Result<Self, Error> {
        let clock = cx.clock();
        let started_at = clock.now();
        let until = later(started_at, cx.fetch_timeout()).min(cx.deadline());
        let material = timeout_at(clock, until, inner.provider.key_material()).await;
        let material = material.ok_or_else(|| {
            let message = "the credentials could not be read within the fetch timeout";
            Error::new(ErrorKind::Timeout, message)
        })??;
        Ok(Self {
            inner: Arc::clone(inner),
            started_at,
            sealer: material.sealer(),
            material,
            cx,
        })
    }

    /// The store, the clock, and how long its operations may take in all.
    pub(super) fn store(&self) -> (&S, &dyn Clock, Instant) {
        (&self.inner.store, self.cx.clock(), self.cx.deadline())
    }

    pub(super) fn age(&self) -> Age {
        Age::starting(self.cx.clock().now(), self.cx.clock().wall())
    }

    /// How old something is by the clock that says most.
    pub(super) fn age_of(&self, age: &Age) -> Duration {
        age.at(self.cx.clock().now(), self.cx.clock().wall())
    }

    /// Fetches from the wrapped provider, which takes this place.
    pub(super) async fn mint(&self, place: Permit) -> Answer {
        let (cx, provider) = (&self.cx, &self.inner.provider);
        let result = cx.fetch_from(provider, place).await;
        let age = match cx.sent_at() {
            Some((now, wall)) => Age::starting(now, wall),
            None => self.age(),
        };
        // The result of another pair is not shared.
        let until = later(cx.clock().now(), SECOND_LOOK);
        let material = timeout_at(cx.clock(), until, provider.key_material()).await;
        let minted = Minted::new(result, material.and_then(Result::ok));
        Answer { minted, age }
    }

    /// The token with `life` from now. The cache counts from the start of the
    /// fetch; waiting does not age a token.
    pub(super) fn hand_out(
        &self,
        token: &AccessToken,
        life: Duration,
        minted_by: Option<String>,
    ) -> AccessToken {
        *self.inner.last() = Some(LastToken {
            header: token.header_value().clone(),
            minted_by,
        });
        let (now, sent_at) = (self.cx.clock().now(), self.cx.sent_at());
        let counted_from = sent_at.map_or(self.started_at, |(sent_at, _)| sent_at);
        let waited = now.saturating_duration_since(counted_from);
        token.with_life(life.saturating_add(waited))
    }
}

/// Adds the entry, sealed, if there is one.
pub(super) fn with_entry(finish: Finish, sealer: &Sealer, entry: Option<Entry>) -> Finish {
    let sealed = entry.and_then(|entry| {
        let sealed = sealer.seal(name::random().ok()?, &entry.encode())?;
        Some((sealed, entry.life()))
    });
    match sealed {
        Some((sealed, life)) => finish.entry(sealed, life),
        None => finish,
    }
}
