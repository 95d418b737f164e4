//! How long the token endpoint is left alone after which failure.

use super::*;

fn length(error: &Error, earlier: u32, left: Option<u64>, chance: f32) -> Duration {
    let bounds = BackoffBounds {
        earlier,
        token_left: left.map(Duration::from_secs),
        max_permanent: BackoffBounds::MAX_PERMANENT_SINGLE,
    };
    backoff_length(error, &bounds, chance)
}

#[test]
fn table_of_backoffs() {
    let s = Duration::from_secs;
    let down = || Error::new(ErrorKind::Transport, "down");
    let wrong = || Error::new(ErrorKind::InvalidClient, "wrong");
    let busy = || Error::new(ErrorKind::RateLimited, "busy");
    #[rustfmt::skip]
    let table = [
        // error, failures before, token left, chance -> backoff
        (down(), 0, None, 1.0, s(1)),
        (down(), 0, None, 0.5, s(1) / 2),
        (down(), 0, None, 0.0, s(1) / 10),
        (down(), 3, None, 1.0, s(8)),
        (down(), 6, None, 1.0, s(60)),
        (down(), u32::MAX, None, 1.0, s(60)),
        (down(), 6, Some(900), 1.0, s(60)),
        (down(), 6, Some(100), 1.0, s(50)),
        (down(), 0, Some(100), 1.0, s(1)),
        (down(), 6, Some(60), 1.0, s(30)),
        (down(), 0, Some(60), 0.0, s(30)),
        (down(), 0, Some(30), 0.0, s(15)),
        (down(), 0, Some(15), 0.0, s(15)),
        (down().with_retry_after(s(20)), 3, None, 0.0, s(20)),
        (down().with_retry_after(s(20)), 6, None, 1.0, s(60)),
        (down().with_retry_after(s(20)), 0, Some(10), 0.0, s(20)),
        (down().with_retry_after(s(0)), 0, None, 0.0, s(1)),
        (down().with_retry_after(s(1_000_000)), 0, None, 0.0, s(3600)),
        (busy(), 0, None, 0.0, s(30)),
        (busy(), 0, None, 1.0, s(60)),
        (busy(), 1, None, 1.0, s(120)),
        (busy(), 9, None, 1.0, s(900)),
        (busy(), 9, Some(800), 1.0, s(400)),
        (busy(), 9, Some(20), 1.0, s(30)),
        (busy().with_retry_after(s(7)), 0, None, 1.0, s(7)),
        (busy().with_retry_after(s(7)), 9, None, 1.0, s(60)),
        (wrong(), 0, None, 0.0, s(60)),
        (wrong(), 2, None, 0.0, s(240)),
        (wrong(), 9, None, 0.0, s(600)),
        (wrong().with_retry_after(s(120)), 0, None, 0.0, s(120)),
        (wrong().with_retry_after(s(20)), 0, None, 0.0, s(60)),
    ];
    for (error, earlier, left, chance, expected) in table {
        let length = length(&error, earlier, left, chance);
        assert_eq!(length, expected, "{error:?} {earlier} {left:?} {chance}");
    }
    let shared = BackoffBounds {
        earlier: 9,
        token_left: None,
        max_permanent: BackoffBounds::MAX_PERMANENT_SHARED,
    };
    assert_eq!(backoff_length(&wrong(), &shared, 0.0), s(3600));
}

fn now() -> Now {
    Now::read(&crate::clock::TokioClock)
}

#[test]
fn fetches_without_a_result_are_started_again_at_once_and_then_ever_later() {
    let now = now();
    let lengths = [1, 2, 3, 4, 5, 6, 99].map(|in_a_row| {
        let backoff = Backoff::lost(in_a_row, now);
        backoff.ends_at(now) - now.monotonic
    });
    assert_eq!(
        lengths,
        [0, 100, 200, 400, 800, 1000, 1000].map(Duration::from_millis)
    );
}

#[test]
fn a_turn_in_line_is_waited_for_as_long_as_it_takes() {
    let now = now();
    for (asked, length) in [
        (0, 100),
        (250, 250),
        (40_000, 40_000),
        (u64::MAX, 604_800_000),
    ] {
        let error = Error::new(ErrorKind::RateLimited, "used up");
        let error = error.with_retry_after(Duration::from_millis(asked));
        let backoff = Backoff::not_attempted(error, Urgency::Waiting, now);
        assert_eq!(
            backoff.ends_at(now) - now.monotonic,
            Duration::from_millis(length)
        );
    }
}

proptest::proptest! {
    #[test]
    fn a_transient_failure_allows_at_most_three_tries_in_the_last_minute_of_a_token(
        first in 1u64..120_000, chances in proptest::collection::vec(0f32..1.0, 200),
    ) {
        let down = Error::new(ErrorKind::Transport, "down");
        let (mut left, mut tries) = (Duration::from_millis(first), 0);
        for (earlier, chance) in (0u32..).zip(chances) {
            if left.is_zero() {
                break;
            }
            tries += u32::from(left <= MINUTE);
            let bounds = BackoffBounds { token_left: Some(left), ..BackoffBounds { earlier, token_left: None, max_permanent: HOUR } };
            let length = backoff_length(&down, &bounds, chance);
            let most = if left <= MINUTE / 4 { left.max(SECOND / 10) } else { left / 2 };
            proptest::prop_assert!(length <= most.max(SECOND / 10));
            left = left.saturating_sub(length);
        }
        proptest::prop_assert!(tries <= 3, "{tries}");
    }
}
