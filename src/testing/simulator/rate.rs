use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A sliding window over the token requests, the refused ones among them: of
/// the ways a limit can work, the one that forgives least.
#[derive(Default)]
pub(super) struct Window {
    arrivals: VecDeque<Instant>,
}

impl Window {
    /// Counts a request; if it is over the limit, says when one would fit.
    pub(super) fn charge(&mut self, now: Instant, limit: u32, per: Duration) -> Option<Duration> {
        let age = |arrival: &Instant| now.duration_since(*arrival);
        while self.arrivals.front().is_some_and(|first| age(first) >= per) {
            self.arrivals.pop_front();
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let refused = self.arrivals.len() >= limit;
        self.arrivals.push_back(now);
        // Only the last `limit` arrivals decide.
        while self.arrivals.len() > limit {
            self.arrivals.pop_front();
        }
        let oldest = self.arrivals.front().map_or(Duration::ZERO, age);
        refused.then(|| per.saturating_sub(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::simulator::state::now;

    const MINUTE: Duration = Duration::from_secs(60);

    fn second(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_place_is_free_again_when_the_oldest_leaves_the_window() {
        let (mut window, start) = (Window::default(), now());
        assert_eq!(window.charge(start, 2, MINUTE), None);
        assert_eq!(window.charge(second(start, 50), 2, MINUTE), None);
        assert_eq!(window.charge(second(start, 60), 2, MINUTE), None);
        let wait = window.charge(second(start, 61), 2, MINUTE);
        assert_eq!(wait, Some(Duration::from_secs(59)));
    }

    #[test]
    fn who_keeps_asking_is_kept_out() {
        let (mut window, start) = (Window::default(), now());
        assert_eq!(window.charge(start, 1, MINUTE), None);
        for minute in 1..5 {
            let asked = second(start, 59 * minute);
            assert_eq!(window.charge(asked, 1, MINUTE), Some(MINUTE));
        }
    }

    #[test]
    fn a_limit_of_none_refuses_all() {
        let mut window = Window::default();
        assert_eq!(window.charge(now(), 0, MINUTE), Some(MINUTE));
    }
}
