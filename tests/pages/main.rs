//! The programs that README shows, run as they are printed: each is a process of its own that talks TLS to a
//! simulator behind the names of the real service.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what must hold; the programs print"
)]

mod server;

use std::process::{Command, Output, Stdio};

use self::server::Server;

/// Set in the child process, which runs the program instead of checking it.
const CHILD: &str = "PAGES_TEST_IS_THE_PROGRAM";

/// A module, and a test, for each program.
macro_rules! programs {
    ($($name:ident: $page:literal;)*) => {
        const PROGRAMS: &[(&str, &str)] = &[
            $(($page, include_str!(concat!("programs/", stringify!($name), ".rs"))),)*
        ];
        $(mod $name {
            include!(concat!("programs/", stringify!($name), ".rs"));

            #[test]
            fn runs_as_printed() {
                if std::env::var_os(super::CHILD).is_some() {
                    return main().unwrap();
                }
                super::run(concat!(stringify!($name), "::runs_as_printed"));
            }
        })*
    };
}

programs! {
    reqwest: "README.md";
    hyper: "README.md";
}

/// Runs a program in a process of its own and checks what it printed and what the simulator saw.
fn run(test: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let output = child(test, &server);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("200 OK"), "{said}\n{complained}");
    assert_eq!(server.officernd().token_requests(), 1);
    assert_eq!(server.officernd().api_requests(), 1);
    assert_eq!(server.officernd().api_unauthorized(), 0);
}

fn child(test: &str, server: &Server) -> Output {
    let officernd = server.officernd();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env(CHILD, "1")
        .env("OFFICERND_CLIENT_ID", officernd.client_id())
        .env("OFFICERND_CLIENT_SECRET", officernd.client_secret())
        .env("OFFICERND_SCOPE", "officernd.api.read")
        .env("OFFICERND_API_URL", server.url())
        // reqwest reads this one, and what loads the root certificates reads the other.
        .env("HTTPS_PROXY", server.proxy())
        .env("NO_PROXY", "127.0.0.1")
        .env("SSL_CERT_FILE", server.root_certificate())
        .stdin(Stdio::null());
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.output().unwrap()
}

/// The Rust programs of a page, in order: its code blocks that have a `main`.
fn printed(page: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = Vec::new();
    let mut block: Option<(bool, String)> = None;
    for line in text.lines() {
        match &mut block {
            None if line.starts_with("```") => {
                block = Some((line.starts_with("```rust"), String::new()));
            }
            None => {}
            Some(_) if line == "```" => {
                let (rust, code) = block.take().unwrap();
                if rust && code.contains("#[tokio::main]") {
                    found.push(code);
                }
            }
            Some((_, code)) => {
                code.push_str(line);
                code.push('\n');
            }
        }
    }
    found
}

#[test]
fn each_page_prints_the_programs_that_run() {
    for page in ["README.md"] {
        let run: Vec<_> = PROGRAMS
            .iter()
            .filter(|(of, _)| *of == page)
            .map(|(_, text)| *text)
            .collect();
        let printed = printed(page);
        assert_eq!(printed.len(), run.len(), "programs in {page}");
        for (printed, run) in printed.iter().zip(run) {
            assert_eq!(
                printed, run,
                "{page} and tests/pages/programs differ: mend both"
            );
        }
    }
}
