//! The schedule of replacements, and the evidence that brings one forward.
#![expect(clippy::disallowed_methods, reason = "any starting point will do")]

use std::time::SystemTime;

use super::*;

/// One token after the other, with a clock that the test moves.
struct Server {
    rejection: Rejection,
    now: Now,
    fetch: u64,
}

impl Server {
    fn new() -> Self {
        Self {
            rejection: Rejection::default(),
            now: Now {
                monotonic: Instant::now(),
                wall: SystemTime::now(),
            },
            fetch: 1,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    fn reject(&mut self) -> bool {
        let unauthorized = Unauthorized {
            challenged: false,
            fetch: self.fetch,
            newest_fetch: self.fetch,
        };
        self.rejection.rejected(unauthorized, self.now)
    }

    fn delay(&self) -> Duration {
        let at = self.rejection.replace_at(self.now).unwrap();
        at - self.now.monotonic
    }

    fn replace(&mut self) {
        self.fetch += 1;
        self.rejection.replaced(false);
    }

    fn is_due(&self) -> bool {
        let at = self.rejection.replace_at(self.now);
        at.is_some_and(|at| at <= self.now.monotonic)
    }
}

#[test]
fn the_first_replacement_comes_at_once_and_later_ones_after_60_s_doubling_to_60_min() {
    let mut server = Server::new();
    let minutes: Vec<u64> = (0..9)
        .map(|_| {
            assert!(server.reject());
            let delay = server.delay().as_secs() / 60;
            server.replace();
            delay
        })
        .collect();
    assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    server.rejection.replaced(true);
    server.reject();
    assert_eq!(server.delay(), Duration::ZERO);
}

#[test]
fn a_token_requested_before_the_401_is_no_strike() {
    let mut server = Server::new();
    let unauthorized = |fetch, newest_fetch| Unauthorized {
        challenged: false,
        fetch,
        newest_fetch,
    };
    // Fetch 2 was under way when the token of fetch 1 was rejected.
    assert!(server.rejection.rejected(unauthorized(1, 2), server.now));
    assert_eq!(server.delay(), Duration::ZERO);
    server.rejection.replaced(false);
    assert!(server.rejection.rejected(unauthorized(2, 2), server.now));
    assert_eq!(server.delay(), Duration::ZERO, "fetch 2 proves nothing");
    server.rejection.replaced(false);
    assert!(server.rejection.rejected(unauthorized(3, 3), server.now));
    assert_eq!(server.delay(), MINUTE, "fetch 3 began after the 401");
}

/// A token that is rejected on one path and accepted on the others, with a
/// replacement that is not due.
fn mixed() -> Server {
    let mut server = Server::new();
    for _ in 0..4 {
        server.reject();
        server.replace();
    }
    server.reject();
    server.rejection.accepted();
    assert_eq!(server.delay(), 8 * MINUTE);
    server
}

#[test]
fn a_long_run_of_401s_after_an_accepted_request_is_a_revocation() {
    let mut server = mixed();
    for _ in 0..9 {
        server.reject();
        assert!(!server.is_due(), "too few");
    }
    server.pass(MIN_RUN_TIME - Duration::from_millis(1));
    server.reject();
    assert!(!server.is_due(), "too soon");
    server.pass(Duration::from_millis(1));
    server.reject();
    assert!(server.is_due());
}

#[test]
fn a_token_that_was_accepted_before_its_first_401_can_be_revoked_too() {
    let mut server = mixed();
    server.replace();
    server.rejection.accepted();
    server.reject();
    assert_eq!(server.delay(), 16 * MINUTE, "by the schedule");
    assert!(is_revoked_after(&mut server, 9));
}

#[test]
fn a_token_revoked_before_it_was_used_is_replaced_once_if_the_one_before_it_was_accepted() {
    let mut server = mixed();
    server.replace();
    assert!(is_revoked_after(&mut server, 10));
    server.replace();
    assert!(!is_revoked_after(&mut server, 1_000), "by the schedule");
}

#[test]
fn a_challenge_counts_as_eight_401s() {
    let mut server = mixed();
    let unauthorized = Unauthorized {
        challenged: true,
        fetch: server.fetch,
        newest_fetch: server.fetch,
    };
    server.rejection.rejected(unauthorized, server.now);
    server.pass(MIN_RUN_TIME);
    assert!(!server.is_due());
    server.rejection.rejected(unauthorized, server.now);
    assert!(server.is_due());
}

#[test]
fn without_an_accepted_request_there_is_no_evidence() {
    let mut server = Server::new();
    server.reject();
    server.replace();
    server.reject();
    for _ in 0..1_000 {
        server.pass(Duration::from_millis(50));
        server.reject();
        assert!(!server.is_due());
    }
    server.pass(Duration::from_secs(10));
    assert!(server.is_due(), "the schedule stays");
}

#[test]
fn within_60_s_there_is_one_decision_and_evidence_never_puts_a_replacement_off() {
    let mut server = mixed();
    for _ in 0..10 {
        server.pass(Duration::from_secs(1));
        server.reject();
    }
    assert!(server.is_due());
    for _ in 0..100 {
        server.reject();
        assert!(server.is_due());
    }
    server.replace();
    server.reject();
    server.rejection.accepted();
    for _ in 0..59 {
        server.pass(Duration::from_secs(1));
        for _ in 0..10 {
            server.reject();
        }
        assert!(!server.is_due());
    }
    server.pass(Duration::from_secs(1));
    server.reject();
    assert!(server.is_due(), "60 s are over");
}

/// A minute of 401s at this many: whether the token counts as revoked.
fn is_revoked_after(server: &mut Server, rejections: u32) -> bool {
    server.pass(MINUTE);
    for _ in 1..rejections {
        server.reject();
    }
    server.pass(MIN_RUN_TIME);
    server.reject();
    server.is_due()
}

/// The next token is rejected on one path and accepted on the others.
fn replace_with_a_mixed_one(server: &mut Server) {
    server.replace();
    server.reject();
    server.rejection.accepted();
}

#[test]
fn a_successor_with_as_long_a_run_shows_that_it_was_no_revocation() {
    let mut server = mixed();
    assert!(is_revoked_after(&mut server, 10));
    replace_with_a_mixed_one(&mut server);
    // Else 10 would be enough again; now 8 and twice the run of that decision.
    assert!(!is_revoked_after(&mut server, 27));
    assert!(is_revoked_after(&mut server, 1));
}

#[test]
fn a_revocation_that_nothing_spoke_against_makes_the_next_one_little_slower() {
    let mut server = mixed();
    for enough in [10, 18, 26, 34] {
        assert!(!is_revoked_after(&mut server, enough - 1), "{enough}");
        server.reject();
        assert!(server.is_due(), "{enough}");
        replace_with_a_mixed_one(&mut server);
        // It lives until its refresh is due.
        server.fetch += 1;
        server.rejection.replaced(true);
        server.reject();
        server.rejection.accepted();
    }
}

#[test]
fn a_revoked_token_that_is_accepted_once_more_was_not_revoked() {
    let mut server = mixed();
    assert!(is_revoked_after(&mut server, 10));
    server.rejection.accepted();
    assert!(server.is_due(), "not put off");
    replace_with_a_mixed_one(&mut server);
    assert!(!is_revoked_after(&mut server, 27));
    assert!(is_revoked_after(&mut server, 1));
}

#[test]
fn what_was_learnt_of_runs_is_halved_when_a_token_ends_unrejected() {
    let mut server = mixed();
    for _ in 0..40 {
        server.reject();
    }
    server.rejection.accepted();
    assert_eq!(server.rejection.longest, 40);
    server.replace();
    server.rejection.replaced(true);
    assert_eq!(server.rejection.longest, 20);
}

#[path = "rejection_bounds_tests.rs"]
mod bounds;
