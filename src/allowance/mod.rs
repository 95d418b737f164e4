//! How many token requests may be sent: a sliding window, shared.

mod endpoints;
mod window;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

pub(crate) use self::endpoints::for_endpoint;
use self::window::{Answer, Ledger};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// OfficeRnD answers five token requests a minute, failed or successful.
pub(crate) const OFFICERND: (u32, Duration) = (5, Duration::from_secs(60));

/// When to ask again where nobody can know.
const A_WHILE: Duration = Duration::from_secs(1);

/// Whether requests stand waiting for the token.
///
/// The order is the rank in the [`Allowance`]'s queue.
///
/// ```
/// use officernd_auth::allowance::Urgency;
///
/// assert!(Urgency::Waiting < Urgency::Background);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Urgency {
    /// At least one request waits.
    Waiting,
    /// The old token still serves.
    Background,
}

/// At most so many token requests in any window of time.
///
/// A clone shares the ledger. Every request counts, failed or successful, from
/// before it is sent until one window after its answer: so no server that
/// counts arrivals can see more, however the network delays them. Fetches that
/// requests wait for go before fetches ahead of time, then first come, first
/// served.
///
/// Caches whose provider talks to one token URL share one of 5 per 60 s in the
/// process, which is what OfficeRnD allows; everything else has to be said.
///
/// ```
/// use officernd_auth::{Allowance, OfficeRndAuthLayer, StaticToken};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let allowance = Allowance::new(3, Duration::from_secs(60));
/// let one = OfficeRndAuthLayer::builder(StaticToken::new("a")?).allowance(allowance.clone());
/// let two = OfficeRndAuthLayer::builder(StaticToken::new("b")?).allowance(allowance);
/// # drop((one, two));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Allowance {
    /// `None` is unlimited.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    /// Somebody left the queue, or ended a request.
    changed: Notify,
}

/// A token request that may be sent. Hold it until the answer is there.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let cx = officernd_auth::FetchContext::default();
/// let permit: officernd_auth::allowance::Permit = cx.permit().await?;
/// // … send, and read the answer …
/// drop(permit);
/// # Ok(())
/// # }
/// ```
#[must_use = "the request counts as answered when the permit is dropped"]
pub struct Permit {
    held: Option<(Arc<Shared>, Arc<dyn Clock>, u64)>,
    /// Dropped before that, it was never spent.
    sent: bool,
}

impl Allowance {
    /// At most `requests` token requests in any window of `per`. Zero requests
    /// is none at all: every fetch fails as rate limited.
    #[must_use]
    pub fn new(requests: u32, per: Duration) -> Self {
        Self {
            shared: Some(Arc::new(Shared {
                ledger: Mutex::new(Ledger::new(requests, per)),
                changed: Notify::new(),
            })),
        }
    }

    /// No limit: for endpoints that set none.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { shared: None }
    }

    pub(crate) fn officernd() -> Self {
        Self::new(OFFICERND.0, OFFICERND.1)
    }

    /// How many in how long; `None` is unlimited.
    #[cfg(feature = "store")]
    pub(crate) fn limit(&self) -> Option<(u32, Duration)> {
        self.shared.as_ref().map(|shared| shared.lock().limit())
    }

    /// Spends one request, waiting until `deadline` if one frees by then.
    ///
    /// Cancel safe: dropped before it is ready, it has spent nothing and left
    /// the queue.
    pub(crate) async fn spend(
        &self,
        clock: &Arc<dyn Clock>,
        mut urgency: watch::Receiver<Urgency>,
        deadline: Instant,
    ) -> Result<Permit, Error> {
        let Some(shared) = &self.shared else {
            let (held, sent) = (None, false);
            return Ok(Permit { held, sent });
        };
        let place = Place::take(shared, *urgency.borrow_and_update())?;
        loop {
            let mut changed = pin!(shared.changed.notified());
            // Registered before the look at the ledger: no change is missed.
            changed.as_mut().enable();
            let now = clock.now();
            let until = match shared.lock().ask(place.id, now) {
                Answer::Granted(id) => {
                    return Ok(Permit {
                        held: Some((Arc::clone(shared), Arc::clone(clock), id)),
                        sent: false,
                    });
                }
                Answer::Free(until) if until <= deadline => until,
                Answer::Free(until) => {
                    return Err(spent().with_retry_after(until.saturating_duration_since(now)));
                }
                // Every request of the window is out: its end is not known.
                Answer::Unknown if now < deadline => deadline,
                Answer::Unknown => return Err(spent().with_retry_after(A_WHILE)),
            };
            let promoted = {
                let mut sleep = clock.sleep_until(until);
                let mut promoted = pin!(promotion(&mut urgency));
                poll_fn(|cx| {
                    if sleep.as_mut().poll(cx).is_ready() || changed.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(false);
                    }
                    promoted.as_mut().poll(cx).map(|()| true)
                })
                .await
            };
            if promoted {
                let urgency = *urgency.borrow_and_update();
                shared.lock().promote(place.id, urgency);
                shared.changed.notify_waiters();
            }
        }
    }
}

/// Completes when a request begins to wait for the flight.
async fn promotion(urgency: &mut watch::Receiver<Urgency>) {
    if urgency.changed().await.is_err() {
        // The cache has given the flight up; its place in the queue stays.
        std::future::pending().await
    }
}

pub(super) fn spent() -> Error {
    Error::new(
        ErrorKind::RateLimited,
        "the allowance of token requests is spent; nothing was sent",
    )
    .unsent()
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    shared: &'a Shared,
    id: u64,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, urgency: Urgency) -> Result<Self, Error> {
        let id = shared.lock().join(urgency).ok_or_else(|| {
            Error::new(
                ErrorKind::RateLimited,
                "too many caches wait for the allowance of token requests",
            )
            .with_retry_after(A_WHILE)
            .unsent()
        })?;
        Ok(Self { shared, id })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.lock().leave(self.id);
        self.shared.changed.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // The ledger is whole between any two of its statements.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// From now on it counts.
    pub(super) fn sent(mut self) -> Self {
        self.sent = true;
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((shared, clock, id)) = self.held.take() {
            match self.sent {
                true => shared.lock().answered(id, clock.now()),
                false => shared.lock().unsent(id),
            }
            shared.changed.notify_waiters();
        }
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shared {
            Some(shared) => shared.lock().fmt(f),
            None => f.write_str("Allowance::unlimited"),
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
