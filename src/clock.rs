//! The clock that a cache reads. No other module reads the time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use pin_project_lite::pin_project;

/// A future that completes when a [`Clock`] has reached an instant.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a cache reads both clocks, and waits.
///
/// Two clocks, because each fails in its own way: the monotonic one stands
/// still while a machine is suspended, the wall clock can be set back. A token
/// is dead as soon as either of them says so.
///
/// The default is [`TokioClock`]. Tests step a
/// [`ManualClock`](crate::testing::ManualClock) or pause tokio's.
///
/// ```
/// use officernd_auth::clock::{Clock, TokioClock};
///
/// let earlier = TokioClock.now();
/// assert!(TokioClock.now() >= earlier);
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The wall clock.
    fn wall(&self) -> SystemTime;

    /// Completes when [`now`](Self::now) has reached `until`. Only called
    /// inside a tokio runtime.
    fn sleep_until(&self, until: Instant) -> Sleep;
}

/// tokio's monotonic clock, so that `tokio::time::pause` and `advance` drive a
/// cache, and the system's wall clock.
///
/// Release builds on Linux read both clocks once in 4 ms or so, as long as
/// tokio's clock runs with the system's. Debug builds read both each time, so
/// that a test that pauses time sees its effect at once.
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

/// What [`tick`] returns where there is no cheap clock.
pub(crate) const NO_TICK: u64 = u64::MAX;

/// The kernel's coarse monotonic clock, in nanoseconds: a quarter of the price of a
/// full reading, and a few milliseconds behind.
///
/// [`NO_TICK`] where the system is not Linux, and in debug builds, where tests pause
/// the clock.
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

/// Whether a clock runs with the system's. One that a test has paused or moved
/// does not, and has no say in ticks.
#[expect(clippy::disallowed_methods, reason = "the module that reads the time")]
pub(crate) fn runs_with_the_system(clock: &dyn Clock) -> bool {
    let before = Instant::now();
    let now = clock.now();
    before <= now && now <= Instant::now()
}

/// Polls `future` until `clock` has reached `until`; `None` is too late.
///
/// The future is polled first: what is ready at the last moment counts, and what is ready at once
/// needs no timer and works outside a runtime, too.
pub(crate) fn timeout_at<F: Future>(
    clock: &dyn Clock,
    until: Instant,
    future: F,
) -> Timeout<'_, F> {
    Timeout {
        future,
        sleep: None,
        clock,
        until,
    }
}

pin_project! {
    // A type, since an `async fn` keeps what it is given twice, and thousands
    // may wait for one token.
    pub(crate) struct Timeout<'a, F> {
        #[pin]
        future: F,
        sleep: Option<Sleep>,
        clock: &'a dyn Clock,
        until: Instant,
    }
}

impl<F: Future> Future for Timeout<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let sleep = || this.clock.sleep_until(*this.until);
        let sleep = this.sleep.get_or_insert_with(sleep);
        sleep.as_mut().poll(cx).map(|()| None)
    }
}

/// `now + after`, or far in the future where that overflows.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const MAX_WAIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    now.checked_add(after.min(MAX_WAIT)).unwrap_or(now)
}

/// `base`, doubled `times` times, at most `cap`.
pub(crate) fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times)).min(cap)
}

/// One reading of both clocks.
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

    /// The time since then, by whichever clock has advanced further.
    pub(crate) fn since(self, then: Self) -> Duration {
        let by_monotonic = self.monotonic.saturating_duration_since(then.monotonic);
        let by_wall = self.wall.duration_since(then.wall).unwrap_or_default();
        by_monotonic.max(by_wall)
    }
}
