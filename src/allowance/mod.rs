//! How many token requests may be sent: a sliding window that caches share.
//!
//! `window` decides, on plain data; `applicant` waits. Nothing here knows caches
//! or providers.

mod applicant;
mod capacity;
mod closures;
mod endpoints;
mod line;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

#[cfg(feature = "store")]
pub(crate) use self::applicant::rate_limited;
pub(crate) use self::applicant::{Applicant, Standing};
use self::closures::Client;
pub(crate) use self::endpoints::for_endpoint;
use self::window::Window;
use crate::clock::Clock;
use crate::config::AllowanceSettings;

/// OfficeRnD answers five token requests a minute, failed or successful.
pub(crate) const OFFICERND: (u32, Duration) = (
    AllowanceSettings::OFFICERND.requests,
    AllowanceSettings::OFFICERND.per,
);

/// Whether requests wait for the token.
///
/// The order is the order in which the [`Allowance`] serves them.
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

/// A limit on token requests: at most a number in any window of time.
///
/// A clone shares the window. Every request counts, failed or successful, from
/// before it is sent until one window after its answer: so no server that
/// counts arrivals can see more, however the network delays them.
///
/// Caches wait in one line. Those that requests wait for go before those that
/// refresh ahead of time; among the latter the earliest expiry goes first;
/// otherwise it is first come, first served. A cache that has to come back
/// later keeps its place, so `retry_after` comes true. A cache whose last fetch
/// failed for a lasting reason (a revoked secret, say) goes last, and has no
/// more than one request of the window while another cache waits.
///
/// After a 429 the window is closed to the client that got it, and to all
/// clients of the token URL once a second one gets a 429 in that time.
///
/// Caches whose provider talks to one token URL share one allowance of 5 per
/// 60 s in the process, which is what OfficeRnD allows. A custom provider's
/// cache has one of its own, unless
/// [`TokenProvider::allowance`](crate::TokenProvider::allowance) or the builder
/// name one.
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
    shared: Arc<Shared>,
    /// Whose requests these are; `None` if the provider does not say.
    client: Option<Client>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    window: Window,
    /// The caches that wait now.
    waiting: HashMap<u64, Arc<Notify>>,
}

/// A token request that may be sent. Hold it until the answer is there.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let cx = officernd_auth::FetchContext::default();
/// let permit: officernd_auth::allowance::Permit = cx.permit().await?;
/// // ... send, and read the answer ...
/// drop(permit);
/// # Ok(())
/// # }
/// ```
#[must_use = "the request counts as answered when the permit is dropped"]
pub struct Permit {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    id: u64,
    /// Dropped before it was sent, the request does not count.
    sent: bool,
}

impl Allowance {
    /// At most `requests` token requests in any window of `per`. Zero requests
    /// is none at all: every fetch fails as rate limited.
    #[must_use]
    pub fn new(requests: u32, per: Duration) -> Self {
        Self::limited(Some((requests, per)))
    }

    /// No limit: for endpoints that set none. A 429 still closes it to the
    /// client that got it.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::limited(None)
    }

    fn limited(limit: Option<(u32, Duration)>) -> Self {
        let state = State {
            window: Window::new(limit),
            waiting: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
            }),
            client: None,
        }
    }

    /// This window, for the client that the other allowance knows.
    #[must_use]
    pub(crate) fn for_client_of(mut self, other: &Self) -> Self {
        self.client.clone_from(&other.client);
        self
    }

    /// A place for one cache, which keeps it for as long as it lives.
    pub(crate) fn applicant(&self) -> Applicant {
        Applicant::new(self)
    }

    /// How many in how long; `None` is unlimited.
    #[cfg(feature = "store")]
    pub(crate) fn limit(&self) -> Option<(u32, Duration)> {
        self.shared.lock().window.limit()
    }
}

/// 5 per 60 s, as OfficeRnD allows. Each call makes a window of its own.
impl Default for Allowance {
    fn default() -> Self {
        Self::new(OFFICERND.0, OFFICERND.1)
    }
}

impl From<AllowanceSettings> for Allowance {
    fn from(settings: AllowanceSettings) -> Self {
        Self::new(settings.requests, settings.per)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The window is whole between any two of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&self) {
        for applicant in self.window.next_in_line() {
            if let Some(changed) = self.waiting.get(&applicant) {
                changed.notify_waiters();
            }
        }
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
        let mut state = self.shared.lock();
        if self.sent {
            state.window.answered(self.id, self.clock.now());
        } else {
            state.window.not_sent(self.id);
        }
        state.wake();
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.lock().window.fmt(f)
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
