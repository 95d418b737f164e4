//! Runs the program, and the commands that it prints.

#![expect(clippy::unwrap_used, reason = "a test says what must hold")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_officernd-simulator"))
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a script in a shell, after the printed `export` lines.
fn shell(script: &str, exports: &str, token: &str) -> String {
    let script = script.replacen("curl ", "curl -sS --noproxy '*' ", 1);
    let output = Command::new("sh")
        .args(["-c", &format!("{exports}\n{script}")])
        .env("TOKEN", token)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_printed_commands_work_and_the_environment_agrees_with_them() {
    let child = program().stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut printed = String::new();
    for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
        printed.push_str(&format!("{}\n", line.unwrap()));
        if printed.contains("$TOKEN") {
            break;
        }
    }
    let (exports, commands) = printed.split_once("\n\n").unwrap();
    let (token_request, api_request) = commands.rsplit_once("\ncurl ").unwrap();
    let (_, token_request) = token_request.split_once("\ncurl ").unwrap();

    let response = shell(&format!("curl {token_request}"), "", "");
    let response: HashMap<String, serde_json::Value> = serde_json::from_str(&response).unwrap();
    let token = response["access_token"].as_str().unwrap();
    let list = shell(&format!("curl {api_request}"), "", token);
    assert!(list.contains("Main Street"), "{list}");

    let with_environment = "curl \"$OFFICERND_TOKEN_URL\" -d grant_type=client_credentials \
         -d \"client_id=$OFFICERND_CLIENT_ID\" -d \"client_secret=$OFFICERND_CLIENT_SECRET\" \
         -d \"scope=$OFFICERND_SCOPES\"";
    let response = shell(with_environment, exports, "");
    assert!(response.contains("access_token"), "{response}");
    let with_environment = "curl -H \"Authorization: Bearer $TOKEN\" \
         \"$OFFICERND_API_URL/api/v2/organizations/$OFFICERND_ORG_SLUG/locations\"";
    let list = shell(with_environment, exports, token);
    assert!(list.contains("Main Street"), "{list}");
}

#[test]
fn it_answers_to_a_command_line() {
    let run = |arguments: &[&str]| -> Output { program().args(arguments).output().unwrap() };
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: officernd-simulator"));
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(
        version,
        format!("officernd-simulator {}\n", env!("CARGO_PKG_VERSION"))
    );
    for wrong in [&["--colour"][..], &["--help", "--colour"]] {
        let refused = run(wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            said.contains("--colour") && said.contains("Usage"),
            "{said}"
        );
    }
}
