//! The clock of a cache. No other module reads the time.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

/// A future that completes when a [`Clock`] has reached an instant.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The monotonic clock, the wall clock and the timers of a cache.
///
/// A token has expired as soon as either clock says so: the monotonic clock stops while the machine
/// is suspended, and the wall clock can be set back.
///
/// The default is [`TokioClock`]. Tests advance a [`ManualClock`](crate::testing::ManualClock) or
/// pause tokio's.
///
/// ```
/// use officernd_auth::clock::{Clock, TokioClock};
///
/// let earlier = TokioClock.now();
/// assert!(TokioClock.now() >= earlier);
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time of the monotonic clock.
    fn now(&self) -> Instant;

    /// Returns the time of the wall clock.
    fn wall(&self) -> SystemTime;

    /// Completes when [`now`](Self::now) has reached `until`. Called only inside a tokio runtime.
    fn sleep_until(&self, until: Instant) -> Sleep;
}

/// tokio's monotonic clock, which `tokio::time::pause` and `advance` control, and the system's wall
/// clock.
///
/// In release builds on Linux, a request that finds a token reads both clocks at most about every
/// 4 ms, unless tokio's clock is paused or advanced. Debug builds read both for each request.
///
/// ```
/// use officernd_auth::clock::{Clock, TokioClock};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let start = TokioClock.now();
/// tokio::time::advance(Duration::from_secs(60)).await;
/// assert_eq!(TokioClock.now() - start, Duration::from_secs(60));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

#[expect(clippy::disallowed_methods, reason = "the module that reads the time")]
impl Clock for TokioClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, until: Instant) -> Sleep {
        Box::pin(tokio::time::sleep_until(until.into()))
    }
}

/// The result of [`tick`] without a cheap clock.
pub(crate) const NO_TICK: u64 = u64::MAX;

/// Reads the kernel's coarse monotonic clock, in nanoseconds. It is a few milliseconds behind, and
/// costs a quarter of a precise reading.
///
/// Returns [`NO_TICK`] if the system is not Linux, and in debug builds, where tests pause the clock.
#[inline(always)]
pub(crate) fn tick() -> u64 {
    #[cfg(all(target_os = "linux", not(debug_assertions)))]
    {
        let coarse = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        (coarse.tv_sec as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(coarse.tv_nsec as u64)
    }
    #[cfg(not(all(target_os = "linux", not(debug_assertions))))]
    NO_TICK
}

/// Returns `true` if the clock agrees with the system's. A clock that a test has paused or advanced
/// does not, so the system's ticks do not apply to it.
#[expect(clippy::disallowed_methods, reason = "the module that reads the time")]
pub(crate) fn runs_with_the_system(clock: &dyn Clock) -> bool {
    let before = Instant::now();
    let now = clock.now();
    before <= now && now <= Instant::now()
}

/// Polls `future` until `clock` reaches `until`; then returns `None`.
///
/// The future is polled first. So a result that is ready at the last moment counts, and one that is
/// ready at once needs no timer and no runtime.
pub(crate) fn timeout_at<F: Future>(
    clock: &dyn Clock,
    until: Instant,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Option<F::Output>> {
    let mut sleep = None;
    poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let sleep = sleep.get_or_insert_with(|| clock.sleep_until(until));
        sleep.as_mut().poll(cx).map(|()| None)
    })
}

/// Returns `now + after`, with `after` limited to ten years.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const MAX_WAIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    now.checked_add(after.min(MAX_WAIT)).unwrap_or(now)
}

/// Returns `base`, doubled `times` times, at most `cap`.
pub(crate) fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times)).min(cap)
}

/// A reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn read(clock: &dyn Clock) -> Self {
        Self {
            monotonic: clock.now(),
            wall: clock.wall(),
        }
    }

    /// Returns the time since `then`, by the clock that has advanced further.
    pub(crate) fn since(self, then: Self) -> Duration {
        let by_monotonic = self.monotonic.saturating_duration_since(then.monotonic);
        let by_wall = self.wall.duration_since(then.wall).unwrap_or_default();
        by_monotonic.max(by_wall)
    }
}
