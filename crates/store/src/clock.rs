//! Time limits and ages on the cache's [`Clock`]. The crate reads no other clock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use officernd_auth::clock::Clock;

/// Returns `now + after`, at most ten years later.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const MAX_WAIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    now.checked_add(after.min(MAX_WAIT)).unwrap_or(now)
}

/// Runs `future` until `clock` has reached `until`; then returns `None`.
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

/// Returns the age by whichever clock has advanced further: the monotonic clock stops while a machine is
/// suspended, and the wall clock can be set back.
pub(crate) fn age(clock: &dyn Clock, since: (Instant, SystemTime)) -> Duration {
    let by_monotonic = clock.now().saturating_duration_since(since.0);
    let by_wall = clock.wall().duration_since(since.1);
    by_monotonic.max(by_wall.unwrap_or_default())
}
