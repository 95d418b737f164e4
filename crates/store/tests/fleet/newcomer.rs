//! The program of README, as printed there: two runs cost one token request.

use std::process::Command;

use officernd_simulator::Simulator;
use testkit::redis::Server;

use crate::stores::README;

/// Set in a process that runs the program instead of the test.
const CHILD: &str = "TEST_RUNS_THE_PROGRAM";

const PROGRAM: &str = include_str!("../programs/reqwest.rs");

mod program {
    include!("../programs/reqwest.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

#[test]
fn two_processes_cost_one_token_request() {
    if std::env::var_os(CHILD).is_some() {
        return program::run();
    }
    assert_eq!(README.matches("```rust").count(), 1);
    assert!(
        README.contains(&format!("```rust,no_run\n{PROGRAM}```\n")),
        "README does not print this program:\n{PROGRAM}"
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let simulator = Simulator::builder().org_slug("acme").start();
    let (officernd, server) = (runtime.block_on(simulator).unwrap(), Server::start());
    for _ in 0..2 {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "newcomer::two_processes_cost_one_token_request"])
            .arg("--nocapture")
            .env_clear()
            .env(CHILD, "1")
            .envs(officernd.env())
            .env("OFFICERND_API_URL", officernd.url())
            .env("OFFICERND_ALLOW_ORIGINS", officernd.url())
            .env("REDIS_URL", server.url())
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}\n{errors}");
        assert!(printed.contains("200 OK"), "{printed}");
    }
    assert_eq!(officernd.token_requests(), 1);
    assert_eq!(
        (officernd.api_requests(), officernd.api_unauthorized()),
        (2, 0)
    );
}
