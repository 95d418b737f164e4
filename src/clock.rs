//! Reads the time. No other module does.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
pub(crate) const NO_TICK: u64 = 0;

/// A cheap reading that changes as soon as either of the system's clocks has
/// moved by more than a few milliseconds, in any way: so both are read in full
/// once in a tick, not once in a request.
///
/// This is the kernel's coarse wall clock. The coarse monotonic one would not
/// do, since it stands still through a suspend. [`NO_TICK`] where the system is
/// not Linux, and in debug builds, where tests pause the clock.
#[inline(always)]
pub(crate) fn tick() -> u64 {
    #[cfg(all(target_os = "linux", not(debug_assertions)))]
    {
        let coarse = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        // Seconds before 1970 or after 2500 make an odd tick, which is a tick.
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
/// The future is polled first: what is ready at the last moment counts.
pub(crate) fn timeout_at<F: Future>(clock: &dyn Clock, until: Instant, future: F) -> Timeout<F> {
    let sleep = clock.sleep_until(until);
    Timeout { future, sleep }
}

/// The same, without a timer for a future that is ready at once: those work
/// outside a runtime, too.
pub(crate) async fn lazy_timeout_at<F: Future>(
    clock: &dyn Clock,
    until: Instant,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let first = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(output) => Some(output),
        Poll::Pending => timeout_at(clock, until, future).await,
    }
}

pin_project! {
    // A type, since an `async fn` keeps what it is given twice, and thousands
    // may wait for one token.
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        this.sleep.as_mut().poll(cx).map(|()| None)
    }
}

/// `now + after`, or far in the future where that overflows.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    now.checked_add(after.min(FAR)).unwrap_or(now)
}

/// How old something is by the clock that says most, and never younger than it
/// was.
///
/// What the wall clock once knew of more than the monotonic one (a suspend) is
/// kept, and when it is set back it is anchored anew: so a suspend is noticed
/// after that, too, and none that was noticed is forgotten.
#[derive(Debug)]
pub(crate) struct Age {
    born: Instant,
    /// Nanoseconds after the epoch. Atomic, since reading may anchor it anew.
    born_wall: AtomicU64,
    /// Nanoseconds that the monotonic clock does not know of.
    slept: AtomicU64,
}

impl Age {
    pub(crate) fn starting(now: Instant, wall: SystemTime) -> Self {
        Self {
            born: now,
            born_wall: AtomicU64::new(nanos(wall)),
            slept: AtomicU64::new(0),
        }
    }

    pub(crate) fn at(&self, now: Instant, wall: SystemTime) -> Duration {
        /// A clock that is merely slewed is not worth a write each time: what
        /// it may gain unwritten, and lose.
        const GAINED: u64 = 1_000_000;
        const LOST: u64 = 1_000_000_000;

        let by_monotonic = now.saturating_duration_since(self.born);
        let by_monotonic = u64::try_from(by_monotonic.as_nanos()).unwrap_or(u64::MAX);
        let least = by_monotonic.saturating_add(self.slept.load(Ordering::Relaxed));
        let wall = nanos(wall);
        let by_wall = wall.saturating_sub(self.born_wall.load(Ordering::Relaxed));
        if by_wall > least.saturating_add(GAINED) {
            let slept = by_wall.saturating_sub(by_monotonic);
            self.slept.fetch_max(slept, Ordering::Relaxed);
        } else if by_wall.saturating_add(LOST) < least {
            self.born_wall
                .store(wall.saturating_sub(least), Ordering::Relaxed);
        }
        Duration::from_nanos(by_wall.max(least))
    }
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
}

/// A span of time that is over as soon as either clock says so: a machine that
/// was suspended does not sit it out again.
#[derive(Debug)]
pub(crate) struct Countdown {
    since: Age,
    started: Instant,
    length: Duration,
}

impl Countdown {
    pub(crate) fn starting(now: Now, length: Duration) -> Self {
        Self {
            since: Age::starting(now.monotonic, now.wall),
            started: now.monotonic,
            length,
        }
    }

    pub(crate) fn left(&self, now: Now) -> Duration {
        /// Clocks that merely drift apart are one clock.
        const DRIFT: Duration = Duration::from_secs(1);

        let passed = now.monotonic.saturating_duration_since(self.started);
        let by_either = self.since.at(now.monotonic, now.wall);
        if by_either >= self.length && by_either > passed.saturating_add(DRIFT) {
            return Duration::ZERO;
        }
        self.length.saturating_sub(passed)
    }

    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.left(now).is_zero()
    }

    /// When it ends by the monotonic clock, if no clock is stepped until then.
    pub(crate) fn ends_at(&self, now: Now) -> Instant {
        later(now.monotonic, self.left(now))
    }
}

fn nanos(wall: SystemTime) -> u64 {
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_clock_that_says_most_decides() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let age = Age::starting(now, wall);
        assert_eq!(age.at(now + HOUR, wall), HOUR);
        let suspended = Age::starting(now, wall);
        assert_eq!(suspended.at(now, wall + HOUR), HOUR);
    }

    #[test]
    fn a_wall_clock_set_back_after_a_suspend_makes_nothing_younger() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let age = Age::starting(now, wall);
        let minute = Duration::from_secs(60);
        assert_eq!(age.at(now, wall + HOUR), HOUR);
        assert_eq!(age.at(now, wall + HOUR - minute), HOUR);
        assert_eq!(age.at(now + minute, wall + HOUR), HOUR + minute);
        // And another suspend after that.
        let later = age.at(now + minute, wall + HOUR + HOUR);
        assert_eq!(later, HOUR + minute + HOUR);
    }

    #[test]
    fn a_suspend_after_the_wall_clock_was_set_back_is_noticed() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let age = Age::starting(now, wall);
        let minute = Duration::from_secs(60);
        assert_eq!(age.at(now + minute, wall - HOUR), minute);
        let after = age.at(now + minute, wall - HOUR + HOUR);
        assert_eq!(after, minute + HOUR);
    }
}
