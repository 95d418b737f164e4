//! A token at an endpoint, on which the rules are tried.

use std::time::Duration;

use super::fresh;
use crate::error::Error;
use crate::fleet::{Claim, Claimed, Finish, Limits, Name, StoredEntry, TokenStore};

/// One token at one endpoint.
pub(super) struct Subject<'a, S> {
    pub(super) store: &'a S,
    key: Name,
    window: Name,
    pub(super) limits: Limits,
}

impl<'a, S: TokenStore> Subject<'a, S> {
    pub(super) fn new(store: &'a S, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            store,
            key: fresh()?,
            window: fresh()?,
            limits,
        })
    }

    /// Another token at the same endpoint.
    pub(super) fn sibling(&self) -> Result<Self, Error> {
        Ok(Self {
            key: fresh()?,
            window: self.window.clone(),
            ..*self
        })
    }

    pub(super) fn request(&self, holder: &Name) -> Claim {
        let (key, window) = (self.key.clone(), self.window.clone());
        Claim::new(key, window, holder.clone(), self.limits)
    }

    pub(super) async fn claim(&self, holder: &Name) -> Result<Claimed, Error> {
        self.store.claim(&self.request(holder)).await
    }

    pub(super) async fn is_granted(&self, holder: &Name) -> Result<bool, Error> {
        Ok(self.claim(holder).await? == Claimed::Granted)
    }

    /// How long the store says to wait; `None` for another answer.
    pub(super) async fn wait(&self, holder: &Name) -> Result<Option<Duration>, Error> {
        Ok(match self.claim(holder).await? {
            Claimed::Leased(wait) | Claimed::RateLimited(wait) => Some(wait),
            _ => None,
        })
    }

    /// The entry, as a process that has seen none gets it.
    pub(super) async fn entry(&self) -> Result<Option<StoredEntry>, Error> {
        let mut look = self.request(&Name::random()?);
        look.may_fetch = false;
        Ok(match self.store.claim(&look).await? {
            Claimed::Entry(entry) => Some(entry),
            _ => None,
        })
    }

    pub(super) async fn release(
        &self,
        holder: &Name,
        frees_after: Duration,
    ) -> Result<bool, Error> {
        self.store.finish(&self.end(holder, frees_after)).await
    }

    pub(super) async fn save(
        &self,
        holder: &Name,
        bytes: &[u8],
        life: Duration,
    ) -> Result<bool, Error> {
        let finish = self.end(holder, Duration::ZERO);
        self.store.finish(&finish.entry(bytes.to_vec(), life)).await
    }

    fn end(&self, holder: &Name, frees_after: Duration) -> Finish {
        let (key, window) = (self.key.clone(), self.window.clone());
        Finish::new(key, window, holder.clone(), frees_after)
    }
}
