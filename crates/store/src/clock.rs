//! Time limits and ages on the cache's [`Clock`]. The store reads no other.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use officernd_auth::clock::Clock;

/// `now + after`, or ten years later if that is less.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const MAX_WAIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    now.checked_add(after.min(MAX_WAIT)).unwrap_or(now)
}

/// Polls `future` until `clock` has reached `until`; then returns `None`.
///
/// Polls the future first: a result that is ready at the last moment counts.
pub(crate) async fn timeout_at<F: Future>(
    clock: &dyn Clock,
    until: Instant,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut sleep = clock.sleep_until(until);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Age by whichever clock has advanced further: the monotonic one stands still while a machine is suspended,
/// and the wall clock can be set back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age {
    since: Instant,
    since_wall: SystemTime,
}

impl Age {
    /// Starts now.
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self::since((clock.now(), clock.wall()))
    }

    pub(crate) fn since((since, since_wall): (Instant, SystemTime)) -> Self {
        Self { since, since_wall }
    }

    pub(crate) fn by(&self, clock: &dyn Clock) -> Duration {
        let by_monotonic = clock.now().saturating_duration_since(self.since);
        let by_wall = clock.wall().duration_since(self.since_wall);
        by_monotonic.max(by_wall.unwrap_or_default())
    }
}
