//! The rate limit on token requests: a sliding window, and a queue of fetches that wait for it.
//!
//! `State` is pure: it decides on plain data, with the time as an argument. [`RateLimit`] waits.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::clock::{Clock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::observability;

/// OfficeRnD's documented limit: 5 token requests per 60 s, failed or successful
/// (<https://developer.officernd.com/reference/post_generate-token>).
pub(crate) const OFFICERND: (u32, Duration) = (5, Duration::from_secs(60));

/// The shortest wait, and the wait while another permit is only reserved.
const SOON: Duration = Duration::from_millis(100);

/// The permits that caches with a permanent failure leave for the others.
const SPARE: usize = 2;

/// The maximum number of token URLs with a window of their own. Further URLs share one window.
const MAX_URLS: usize = 1024;

/// Whether requests wait for the token.
///
/// The [`RateLimit`] grants permits to waiting fetches before background fetches.
///
/// ```
/// use officernd_auth::rate_limit::Urgency;
///
/// assert!(Urgency::Waiting < Urgency::Background);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Urgency {
    /// At least one request waits.
    Waiting,
    /// No request waits: the old token is still valid, or a timer fetches.
    Background,
}

/// The priority of a fetch in the queue. Within a class: first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Requests wait for the token.
    Waiting,
    /// No request waits. The old token is due for its refresh, or a timer fetches the first one.
    Background,
    /// The old token was rejected with 401, and is not due for its refresh. A scope that is missing
    /// everywhere makes every cache fetch such replacements, so they come after the refreshes.
    Rejected,
    /// The cache's last fetch failed permanently.
    Failing,
}

/// A limit on token requests: at most a number of requests in any window of time.
///
/// A clone shares the window. Every request counts, failed or successful, from before it is sent
/// until one window after its response. So a server that counts arrivals never sees more than the
/// limit, however long the network takes.
///
/// Fetches wait in one queue with four classes, first come, first served within a class:
///
/// 1. fetches that requests wait for;
/// 2. refreshes in the background;
/// 3. replacements of tokens that were rejected with 401 and are not due for a refresh yet;
/// 4. fetches of caches whose last fetch failed permanently, as with a revoked secret. They leave
///    two requests of the window to the other classes (fewer if the limit is below 3).
///
/// A fetch whose turn comes after its deadline fails at once with
/// [`ErrorKind::RateLimited`]; its [`retry_after`](Error::retry_after) is the earliest time at
/// which a new attempt can succeed.
///
/// A 429 from the token endpoint closes the window for all fetches, for its `Retry-After` (RFC 9110
/// section 10.2.3) but at most for one window. Without `Retry-After` it is closed for one window.
///
/// The default is 5 requests per 60 s, the limit that OfficeRnD
/// [documents](https://developer.officernd.com/reference/post_generate-token). In a process, all
/// caches with the same token URL share one window. The cache of a custom provider has its own
/// window, unless [`TokenProvider::rate_limit`](crate::TokenProvider::rate_limit) or the
/// builder sets one.
///
/// ```
/// use officernd_auth::{OfficeRndAuthLayer, RateLimit, StaticToken};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limit = RateLimit::new(3, Duration::from_secs(60));
/// let one = OfficeRndAuthLayer::builder(StaticToken::new("a")?).rate_limit(limit.clone());
/// let two = OfficeRndAuthLayer::builder(StaticToken::new("b")?).rate_limit(limit);
/// # drop((one, two));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RateLimit {
    state: Arc<Mutex<State>>,
    /// Wakes the queue after each change.
    changed: Arc<Notify>,
}

/// The permission to send one token request. Hold it until the response has arrived.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let cx = officernd_auth::FetchContext::default();
/// let permit: officernd_auth::rate_limit::Permit = cx.permit().await?;
/// // ... send, and read the response ...
/// drop(permit);
/// # Ok(())
/// # }
/// ```
#[must_use = "the request counts as answered when the permit is dropped"]
pub struct Permit {
    rate_limit: RateLimit,
    clock: Arc<dyn Clock>,
    fetch_timeout: Duration,
    /// The number in the queue, and then in the window.
    number: u64,
    /// Called at the end of the request, with `false` if its connection was never made. `None`: the
    /// permit is only reserved.
    on_end: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
    /// Whether the connection was never made.
    unsent: bool,
}

impl RateLimit {
    /// Creates a rate limit of at most `requests` token requests in any window of `per`. With zero requests, every
    /// fetch fails with [`ErrorKind::RateLimited`].
    #[must_use]
    pub fn new(requests: u32, per: Duration) -> Self {
        Self::limited(Some((requests, per)))
    }

    /// Creates a rate limit that grants every permit, for token endpoints without a limit. A 429 still
    /// stops all requests, for at most 60 s.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::limited(None)
    }

    fn limited(limit: Option<(u32, Duration)>) -> Self {
        let state = State {
            limit,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        }
    }

    /// Returns the window of the process for this token URL.
    ///
    /// The window outlives its caches: a program that builds a client for each request must not get
    /// five more token requests each time.
    pub(crate) fn for_url(token_url: &str) -> Self {
        static WINDOWS: LazyLock<Mutex<HashMap<String, RateLimit>>> = LazyLock::new(Mutex::default);

        let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
        let own = windows.len() < MAX_URLS || windows.contains_key(token_url);
        let key = if own { token_url } else { "" };
        windows.entry(key.to_owned()).or_default().clone()
    }

    /// Returns the number of requests and the length of the window. `None` is unlimited.
    pub(crate) fn limit(&self) -> Option<(u32, Duration)> {
        self.lock().limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No statement leaves the state inconsistent if it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a permit, waiting until `deadline` at most. `class` is the priority until the given
    /// time. Without it the urgency decides, and a change of the urgency moves the fetch in the queue.
    ///
    /// Fails at once with [`ErrorKind::RateLimited`] if its turn comes after the deadline. Its
    /// `retry_after` is a lower bound: fetches that join the queue later may go first.
    ///
    /// Cancel safe: a future that is dropped early leaves the queue.
    pub(crate) async fn acquire(
        &self,
        class: Option<(Class, Instant)>,
        mut urgency: watch::Receiver<Urgency>,
        deadline: Instant,
        fetch_timeout: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Permit, Error> {
        // Dropping it leaves the queue, or releases the slot in the window.
        let permit = Permit {
            rate_limit: self.clone(),
            clock: Arc::clone(clock),
            fetch_timeout,
            number: self.lock().next_number(),
            on_end: None,
            unsent: false,
        };
        loop {
            // Created before the decision, so that it misses no later change.
            let mut changed = pin!(self.changed.notified());
            let by_urgency = match *urgency.borrow_and_update() {
                Urgency::Waiting => Class::Waiting,
                Urgency::Background => Class::Background,
            };
            let until = {
                let mut state = self.lock();
                // Read under the lock, so that the window sees time in order.
                let now = clock.now();
                let class = class.filter(|(_, until)| now < *until);
                let class = class.map_or(by_urgency, |(class, _)| class);
                match state.turn(permit.number, class, deadline, fetch_timeout, now) {
                    None => break,
                    Some(at) if at <= deadline => at,
                    Some(at) => return Err(rate_limited(at.saturating_duration_since(now))),
                }
            };
            let mut promoted = pin!(async {
                if urgency.changed().await.is_err() {
                    // The urgency can no longer change.
                    pending().await
                }
            });
            let woken = poll_fn(|cx| match changed.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => promoted.as_mut().poll(cx),
            });
            timeout_at(&**clock, until, pin!(woken)).await;
        }
        Ok(permit)
    }

    /// Records a 429 with this `Retry-After`.
    pub(crate) fn refused(&self, retry_after: Option<Duration>, clock: &dyn Clock) {
        self.lock().refused(retry_after, clock.now());
        // Fetches whose turn now comes after their deadline fail at once.
        self.changed.notify_waiters();
    }
}

/// 5 requests per 60 s, as OfficeRnD documents. Each call creates a new window.
impl Default for RateLimit {
    fn default() -> Self {
        Self::new(OFFICERND.0, OFFICERND.1)
    }
}

impl Permit {
    /// Returns the permit to the window, because the connection was never made: the server cannot
    /// have counted the request.
    pub fn unsent(mut self) {
        self.unsent = true;
    }

    /// Counts the request from now on.
    pub(crate) fn sent(mut self, on_end: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        let mut state = self.rate_limit.lock();
        state.take(self.number, true, self.fetch_timeout, self.clock.now());
        drop(state);
        self.on_end = Some(Box::new(on_end));
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let sent = self.on_end.is_some() && !self.unsent;
        let mut state = self.rate_limit.lock();
        state.end(self.number, sent, self.clock.now());
        drop(state);
        self.rate_limit.changed.notify_waiters();
        if let Some(on_end) = self.on_end.take() {
            on_end(sent);
        }
        if sent {
            observability::token_request();
        }
    }
}

fn rate_limited(retry_after: Duration) -> Error {
    Error::new(
        ErrorKind::RateLimited,
        "the rate limit on token requests is used up; nothing was sent",
    )
    .with_retry_after(retry_after)
    .not_attempted()
}

/// The window and the queue.
#[derive(Default)]
struct State {
    /// The number of requests and the length of the window. `None` is unlimited.
    limit: Option<(u32, Duration)>,
    in_flight: Vec<InFlight>,
    /// When each answered request stops counting, in order.
    frees: Vec<Instant>,
    /// Waiting fetches by number, with their class and deadline.
    queue: BTreeMap<u64, (Class, Instant)>,
    /// Set by a 429.
    closed_until: Option<Instant>,
    last_number: u64,
}

/// A permit that is held.
struct InFlight {
    number: u64,
    /// Whether the request was sent; a reserved permit has `false`.
    sent: bool,
    /// A permit that is held longer belongs to a runtime that no longer runs.
    forgotten_at: Instant,
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Reserves a permit, or puts the fetch in the queue and returns the earliest time of its turn,
    /// at least 100 ms from now. A change may bring the turn forward.
    fn turn(
        &mut self,
        number: u64,
        class: Class,
        deadline: Instant,
        fetch_timeout: Duration,
        now: Instant,
    ) -> Option<Instant> {
        self.forget(now);
        let turn = match self.limit {
            Some(limit) => self.turn_of((class, number), limit, now),
            None => now,
        };
        let at = self.closed_until.map_or(turn, |until| until.max(turn));
        if at > now {
            self.queue.insert(number, (class, deadline));
            return Some(at.max(later(now, SOON)));
        }
        self.queue.remove(&number);
        self.take(number, false, fetch_timeout, now);
        None
    }

    /// Returns the earliest turn of a fetch with this rank, if all fetches ahead of it take theirs.
    fn turn_of(&self, rank: (Class, u64), limit: (u32, Duration), now: Instant) -> Instant {
        let (requests, per) = (usize::try_from(limit.0).unwrap_or(usize::MAX), limit.1);
        let ranks = self
            .queue
            .iter()
            .map(|(&number, &(class, _))| (class, number));
        let ahead = ranks.filter(|other| *other < rank).count();
        let spare = match rank.0 {
            Class::Failing => SPARE.min(requests.saturating_sub(1)),
            Class::Waiting | Class::Background | Class::Rejected => 0,
        };
        let taken = self.in_flight.len() + self.frees.len();
        let Some(missing) = (ahead + spare).checked_sub(requests.saturating_sub(taken)) else {
            return now;
        };
        if self.in_flight.iter().any(|request| !request.sent) {
            return later(now, SOON);
        }
        let rounds = missing.checked_div(requests).unwrap_or(0);
        let first = self.frees.get(missing - rounds * requests).copied();
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        // A request in flight may be answered now, and then counts for one more window.
        later(
            first.unwrap_or_else(|| later(now, per)),
            per.saturating_mul(rounds),
        )
    }

    /// Records a new permit, or that a reserved permit is used now.
    fn take(&mut self, number: u64, sent: bool, fetch_timeout: Duration, now: Instant) {
        self.in_flight.retain(|request| request.number != number);
        self.in_flight.push(InFlight {
            number,
            sent,
            forgotten_at: later(now, fetch_timeout.saturating_add(self.per())),
        });
    }

    /// Records the end of a request, or of a wait in the queue.
    fn end(&mut self, number: u64, sent: bool, now: Instant) {
        self.forget(now);
        self.queue.remove(&number);
        let before = self.in_flight.len();
        self.in_flight.retain(|request| request.number != number);
        if sent && self.limit.is_some() && self.in_flight.len() < before {
            self.frees.push(later(now, self.per()));
        }
    }

    fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        let per = self.per();
        let until = later(now, retry_after.unwrap_or(per).min(per));
        self.closed_until = self.closed_until.max(Some(until));
    }

    /// Drops what no longer counts. Also drops times beyond one window, which exist after a test has
    /// set the clock back.
    fn forget(&mut self, now: Instant) {
        let latest = later(now, self.per());
        let counts = |at: &Instant| now < *at && *at <= latest;
        self.frees.retain(counts);
        self.closed_until = self.closed_until.filter(counts);
        self.in_flight.retain(|request| now < request.forgotten_at);
        // A fetch that waits past its deadline belongs to a runtime that no longer runs.
        self.queue.retain(|_, (_, deadline)| now <= *deadline);
    }

    fn per(&self) -> Duration {
        self.limit.unwrap_or(OFFICERND).1
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let Some((requests, per)) = state.limit else {
            return f.write_str("RateLimit::unlimited");
        };
        f.debug_struct("RateLimit")
            .field("requests", &requests)
            .field("per", &per)
            .field("used", &(state.in_flight.len() + state.frees.len()))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
