//! Loads the pair before each token request, and remembers the last good one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::source::{AppCredentials, Source};
use crate::clock::{Clock, lazy_timeout_at};
use crate::error::{BoxError, ConfigError, Error, ErrorKind};
use crate::observability;

/// A source and what it returned last.
#[derive(Debug)]
pub(crate) struct Loader {
    source: Source,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    last_good: Option<AppCredentials>,
    last_used: Option<AppCredentials>,
}

impl Loader {
    /// Reads values and files now, so that mistakes show at set-up.
    pub(crate) fn new(source: Source) -> Result<Self, ConfigError> {
        let known = Known {
            last_good: source.read()?,
            last_used: None,
        };
        Ok(Self {
            source,
            known: Mutex::new(known),
        })
    }

    /// The pair to use now. While the source fails or takes longer than
    /// `until`, the last good pair.
    pub(crate) async fn load(
        &self,
        clock: &dyn Clock,
        until: Instant,
    ) -> Result<AppCredentials, Error> {
        let loaded = match lazy_timeout_at(clock, until, self.source.load()).await {
            Some(loaded) => loaded,
            None => Err(BoxError::from("the source did not answer in time")),
        };
        let mut known = self.lock();
        match loaded {
            Ok(pair) => {
                known.last_good = Some(pair.clone());
                Ok(pair)
            }
            Err(error) => match known.last_good.clone() {
                Some(pair) => {
                    drop(known);
                    observability::credentials_unreadable(&*error);
                    Ok(pair)
                }
                None => Err(Error::new(
                    ErrorKind::Transport,
                    format!("the credentials cannot be loaded: {error}"),
                )),
            },
        }
    }

    /// Remembers that a token request was sent with this pair.
    pub(crate) fn used(&self, pair: &AppCredentials) {
        self.lock().last_used = Some(pair.clone());
    }

    /// Whether the source may return another pair later.
    #[cfg(feature = "store")]
    pub(crate) fn can_change(&self) -> bool {
        self.source.can_change()
    }

    /// Whether the source has another pair than the last request was sent with.
    /// A source that fails has not.
    pub(crate) async fn changed(&self) -> bool {
        if !self.source.can_change() {
            return false;
        }
        let loaded = self.source.load().await.ok();
        let known = self.lock();
        match (loaded, &known.last_used) {
            (Some(loaded), Some(used)) => !loaded.same_as(used),
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each field stands for itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
