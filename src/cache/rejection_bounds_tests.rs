//! What wrong decisions cost at most, whatever a server answers.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The token requests that 401s brought forward.
struct Decisions {
    count: u32,
    last: Option<Instant>,
}

impl Decisions {
    fn new() -> Self {
        let (count, last) = (0, None);
        Self { count, last }
    }

    /// Whether the last response brought one.
    fn is_new(&mut self, server: &Server) -> bool {
        let decided = server.rejection.decided;
        let is_new = decided != mem::replace(&mut self.last, decided);
        self.count += u32::from(is_new);
        is_new
    }
}

/// A job that sends so many requests to a forbidden path in the life of each
/// token, or of every second or third, a second apart. A day of it.
#[test]
fn an_hourly_job_on_a_forbidden_path_costs_few_token_requests_a_day() {
    for (every, requests) in (1..=3).flat_map(|every| (1..200).map(move |n| (every, n))) {
        let (mut server, mut decisions) = (mixed(), Decisions::new());
        for life in 0..34 {
            server.rejection.accepted();
            let requests = if life % every == 0 { requests } else { 0 };
            for _ in 0..requests {
                server.pass(Duration::from_secs(1));
                server.reject();
                if decisions.is_new(&server) {
                    server.replace();
                }
            }
            server.rejection.accepted();
            server.pass(40 * MINUTE);
            server.fetch += 1;
            server.rejection.replaced(true);
        }
        assert!(
            decisions.count <= 12,
            "{every}, {requests}: {}",
            decisions.count
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // A case is a day of 10,000 responses.
        cases: 64, ..Default::default()
    })]
    /// Every token is as good as the last: each decision is wrong.
    #[test]
    fn wrong_decisions_are_at_most_logarithmic_in_the_responses(
        responses in vec((0u32..60, 0u8..100), 10_000),
        forbidden in 0u8..=100,
    ) {
        let mut server = Server::new();
        let (mut decisions, mut counted) = (Decisions::new(), 0u64);
        for (pause, path) in responses {
            server.pass(Duration::from_secs(pause.into()));
            counted += 1;
            if path < forbidden {
                server.reject();
            } else {
                server.rejection.accepted();
            }
            if decisions.is_new(&server) {
                server.replace();
                // The replacement shows the same mixture.
                server.reject();
                server.rejection.accepted();
                counted += 2;
            }
        }
        let most = (counted as f64 / 8.0 + 1.0).log2().ceil();
        prop_assert!(f64::from(decisions.count) <= most, "{} of {counted}", decisions.count);
    }
}

/// After the shortest run that counts.
fn revoked_and_replaced() -> Server {
    let mut server = Server::new();
    server.rejection.accepted();
    for _ in 0..MIN_RUN {
        server.pass(Duration::from_secs(1));
        server.reject();
    }
    assert_eq!(server.rejection.revoked_by, Some(MIN_RUN));
    server.replace();
    server
}

#[test]
fn a_run_that_goes_on_after_the_replacement_counts_with_the_one_before_but_not_a_stray_401() {
    for (after, longest) in [
        (MAX_STRAY, MAX_STRAY),
        (MAX_STRAY + 1, MIN_RUN + MAX_STRAY + 1),
    ] {
        let mut server = revoked_and_replaced();
        for _ in 0..after {
            server.pass(Duration::from_secs(1));
            server.reject();
        }
        server.rejection.accepted();
        assert_eq!(server.rejection.longest, longest, "{after}");
    }
}

#[test]
fn a_token_that_was_accepted_since_is_no_proof_against_its_replacement() {
    let mut server = revoked_and_replaced();
    server.rejection.accepted();
    for _ in 0..=MAX_STRAY {
        server.reject();
    }
    server.rejection.accepted();
    assert_eq!(server.rejection.longest, MAX_STRAY + 1);
}

#[test]
fn a_stray_401_is_one_request_whatever_its_challenge_weighs() {
    let mut server = revoked_and_replaced();
    let unauthorized = Unauthorized {
        challenged: true,
        fetch: server.fetch,
        newest_fetch: server.fetch,
    };
    server.rejection.rejected(unauthorized, server.now);
    server.rejection.accepted();
    assert_eq!(server.rejection.longest, CHALLENGE_WEIGHT);
}

#[test]
fn a_run_is_not_held_against_the_next_token_for_having_had_to_last() {
    let mut server = mixed();
    assert!(is_revoked_after(&mut server, 1_000));
    replace_with_a_mixed_one(&mut server);
    assert!(is_revoked_after(&mut server, 28));
}

#[test]
fn an_outage_of_401s_is_forgotten_by_halves_though_every_token_is_rejected() {
    let mut server = mixed();
    for _ in 0..1_000 {
        server.reject();
    }
    for longest in [1_000, 1_000, 500, 250, 125] {
        server.rejection.accepted();
        assert_eq!(server.rejection.longest, longest);
        server.rejection.replaced(true);
        server.reject();
    }
}
