//! One organization in the map.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::cache::TokenCache;
use crate::error::{Error, ErrorKind};
use crate::origin::OriginPolicy;

/// An organization that has credentials.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) cache: TokenCache,
    pub(super) origins: Option<OriginPolicy>,
}

#[derive(Default)]
pub(super) struct Entry {
    pub(super) known: OnceCell<Known>,
    /// Why there is no cache, until when the resolver is not asked again, and
    /// how often it has failed.
    refused: Mutex<Option<(Error, Instant, u32)>>,
    /// Whether a request came since the last eviction. Written once per
    /// eviction, so that hits do not compete for it.
    used: AtomicBool,
}

impl Known {
    /// Whether a request to a URI of these parts may carry the organization's
    /// token. The layer's own list is checked elsewhere.
    #[inline]
    pub(crate) fn check_origin(
        &self,
        slug: &str,
        scheme: Option<&str>,
        authority: Option<&str>,
    ) -> Result<(), Error> {
        let Some(origins) = &self.origins else {
            return Ok(());
        };
        origins.check_listed(scheme, authority).map_err(|_| {
            let message = "its token is restricted to other origins than the request's";
            Error::new(ErrorKind::ForeignOrigin, message).of_organization(slug)
        })
    }
}

impl Entry {
    #[inline]
    pub(super) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> MutexGuard<'_, Option<(Error, Instant, u32)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
