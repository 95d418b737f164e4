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

/// A job that sends so many requests to a forbidden path once in the life of a
/// token, a second apart, among good requests. A day of it.
#[test]
fn an_hourly_job_on_a_forbidden_path_costs_few_token_requests_a_day() {
    for requests in 1..200 {
        let (mut server, mut decisions) = (mixed(), Decisions::new());
        for _ in 0..34 {
            server.rejection.accepted();
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
        assert!(decisions.count <= 8, "{requests}: {}", decisions.count);
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

#[test]
fn a_run_that_goes_on_after_the_replacement_counts_with_the_one_before_but_not_a_stray_401() {
    let before = MIN_RUN;
    for (after, longest) in [
        (MAX_STRAY, MAX_STRAY),
        (MAX_STRAY + 1, before + MAX_STRAY + 1),
    ] {
        let mut server = Server::new();
        server.rejection.accepted();
        for _ in 0..before {
            server.pass(Duration::from_secs(1));
            server.reject();
        }
        assert_eq!(server.rejection.verdict, Some(before));
        server.replace();
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
    let mut server = Server::new();
    server.rejection.accepted();
    for _ in 0..MIN_RUN {
        server.pass(Duration::from_secs(1));
        server.reject();
    }
    server.replace();
    server.rejection.accepted();
    for _ in 0..=MAX_STRAY {
        server.reject();
    }
    server.rejection.accepted();
    assert_eq!(server.rejection.longest, MAX_STRAY + 1);
}
