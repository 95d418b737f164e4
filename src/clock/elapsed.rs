//! Spans of time by two clocks: a suspend or a step shows on one of them only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Now, later};

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

    #[test]
    fn a_small_step_counts_from_its_own_threshold_on() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        for (step, noticed) in [(900, false), (1_000, false), (1_100, true), (30_000, true)] {
            let step = Duration::from_millis(step);
            let age = Age::starting(now, wall);
            assert_eq!(age.at(now + minute, wall + minute - step), minute);
            // A suspend of the same length.
            let after = if noticed { minute + step } else { minute };
            assert_eq!(age.at(now + minute, wall + minute), after, "{step:?}");
        }
        for (step, kept) in [(500, false), (1_000, false), (1_500, true), (500_000, true)] {
            let step = Duration::from_micros(step);
            let age = Age::starting(now, wall);
            assert_eq!(age.at(now, wall + step), step);
            let after = if kept { step } else { Duration::ZERO };
            assert_eq!(age.at(now, wall), after, "{step:?}");
        }
    }

    #[test]
    fn a_countdown_ends_by_the_wall_clock_only_if_that_was_stepped() {
        let s = Duration::from_secs;
        let started = Now {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        };
        #[rustfmt::skip]
        let table = [
            // passed by the monotonic clock, more by the wall clock -> left
            (9, Duration::ZERO, s(1)),
            // Clocks that drift apart.
            (9, s(1), s(1)),
            (9, Duration::from_millis(1_001), s(0)),
            (0, s(9), s(10)),
            (0, s(10), s(0)),
            (10, s(0), s(0)),
        ];
        for (passed, more, left) in table {
            let countdown = Countdown::starting(started, s(10));
            let now = Now {
                monotonic: started.monotonic + s(passed),
                wall: started.wall + s(passed) + more,
            };
            assert_eq!(countdown.left(now), left, "{passed} {more:?}");
            assert_eq!(countdown.is_over(now), left.is_zero());
        }
    }
}
