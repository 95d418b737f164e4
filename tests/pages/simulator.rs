//! `examples/simulator.rs`: the curl commands that it prints work as they are printed.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test says what must hold")]

#[path = "../../examples/simulator.rs"]
mod example;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use example::main;

/// Set in the child process, whose test is the program.
const CHILD: &str = "TEST_RUNS_THE_PROGRAM";

#[test]
fn the_printed_curl_commands_get_a_token_and_use_it() {
    if std::env::var_os(CHILD).is_some() {
        return main().unwrap();
    }
    let mut simulator = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_printed_curl_commands_get_a_token_and_use_it",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(simulator.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut starting = |text: &str| lines.find(|line| line.starts_with(text)).unwrap();
    let first = starting("curl ");
    let rest = starting("  -d");
    let second = starting("curl ");

    let token_request = format!("{}{rest}", first.trim_end_matches('\\'));
    let answer: serde_json::Value = serde_json::from_str(&shell(&token_request, "")).unwrap();
    assert_eq!(answer["scope"], "flex.space.locations.read");
    let list = shell(&second, answer["access_token"].as_str().unwrap());
    assert!(list.contains("Main Street"), "{list}");
    simulator.kill().unwrap();
    simulator.wait().unwrap();
}

fn shell(command: &str, token: &str) -> String {
    let command = command.replacen("curl ", "curl -sS --noproxy '*' ", 1);
    let output = Command::new("sh")
        .args(["-c", &command])
        .env("TOKEN", token)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
