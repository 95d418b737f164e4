//! Loads the pair before each token request, and remembers the last good one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::source::{AppCredentials, Source};
use crate::clock::{Clock, timeout_at};
use crate::error::{BoxError, ConfigError, Error, ErrorKind};
use crate::observability;

/// A source that could not be read is asked again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

const UNREADABLE: &str = "the credentials cannot be loaded";

/// A source and what it returned last.
#[derive(Debug)]
pub(crate) struct Loader {
    source: Source,
    last_good: Mutex<Option<AppCredentials>>,
}

impl Loader {
    /// Reads values and files now, so that mistakes show at set-up.
    pub(crate) fn new(source: Source) -> Result<Self, ConfigError> {
        Ok(Self {
            last_good: Mutex::new(source.read()?),
            source,
        })
    }

    /// The pair to use now. While the source fails or takes longer than
    /// `until`, the last good pair.
    pub(crate) async fn load(
        &self,
        clock: &dyn Clock,
        until: Instant,
    ) -> Result<AppCredentials, Error> {
        let loaded = match timeout_at(clock, until, self.source.load()).await {
            Some(loaded) => loaded,
            None => Err(BoxError::from("the source did not answer in time")),
        };
        let mut last_good = self.lock();
        match loaded {
            Ok(pair) => {
                *last_good = Some(pair.clone());
                Ok(pair)
            }
            Err(error) => match last_good.clone() {
                Some(pair) => {
                    drop(last_good);
                    observability::credentials_unreadable(&*error, true);
                    Ok(pair)
                }
                None => {
                    drop(last_good);
                    observability::credentials_unreadable(&*error, false);
                    // Waiting callers get it at once: the endpoint was not asked.
                    let unreadable = Error::new(ErrorKind::Transport, UNREADABLE).not_attempted();
                    let unreadable = unreadable.with_source(error).with_retry_after(LOOK_AGAIN);
                    Err(unreadable.with_max_backoff(LOOK_AGAIN))
                }
            },
        }
    }

    /// Whether another pair may be loaded later.
    pub(crate) fn can_change(&self) -> bool {
        self.source.can_change()
    }

    fn lock(&self) -> MutexGuard<'_, Option<AppCredentials>> {
        // An option is whole between any two statements.
        self.last_good
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
