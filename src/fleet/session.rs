//! What one fetch works with: the provider, the store, its terms and its keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::key::{KeyMaterial, KeyedProvider, Minted};
use super::seal::Sealer;
use super::store::{Finish, random};
use super::{Inner, LastToken};
use crate::clock::{Age, Clock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::provider::FetchContext;
use crate::token::AccessToken;

pub(super) struct Session<P> {
    pub(super) inner: Arc<Inner<P>>,
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

impl<P: KeyedProvider> Session<P> {
    pub(super) async fn new(inner: &Arc<Inner<P>>, cx: FetchContext) -> Result<Self, Error> {
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

    /// The clock, and when the store's operations must have ended.
    pub(super) fn limits(&self) -> (&dyn Clock, Instant) {
        (self.cx.clock(), self.cx.deadline())
    }

    pub(super) fn age(&self) -> Age {
        Age::starting(self.cx.clock().now(), self.cx.clock().wall())
    }

    /// How old something is by the clock that says most.
    pub(super) fn age_of(&self, age: &Age) -> Duration {
        age.at(self.cx.clock().now(), self.cx.clock().wall())
    }

    /// Sends one token request.
    pub(super) async fn mint(&self) -> Answer {
        let clock = self.cx.clock();
        let age = self.age();
        let until = later(clock.now(), self.cx.fetch_timeout());
        let mut cx = self.cx.clone();
        cx.deadline = cx.deadline.min(until);
        let minted = timeout_at(clock, until, self.inner.provider.mint(cx)).await;
        let minted = minted.unwrap_or_else(|| {
            let message = "the token endpoint did not answer within the fetch timeout";
            let timeout = Error::new(ErrorKind::Timeout, message);
            Minted::new(Err(timeout), Some(self.material.clone()))
        });
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
        let now = self.cx.clock().now();
        let waited = now.saturating_duration_since(self.started_at);
        token.with_life(life.saturating_add(waited))
    }
}

/// Adds the entry, sealed, if there is one.
pub(super) fn with_entry(finish: Finish, sealer: &Sealer, entry: Option<Entry>) -> Finish {
    let sealed = entry.and_then(|entry| {
        let sealed = sealer.seal(random().ok()?, &entry.encode())?;
        Some((sealed, entry.life()))
    });
    match sealed {
        Some((sealed, life)) => finish.entry(sealed, life),
        None => finish,
    }
}
