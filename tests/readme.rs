//! README's programs, run as README prints them: each in a process of its own, against a simulator over TLS.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what must hold; the programs print"
)]

mod server;

const README: &str = include_str!("../README.md");

/// A module with the program, and a test that runs it.
macro_rules! program {
    ($name:ident, $file:literal) => {
        mod $name {
            include!($file);

            #[test]
            fn runs_as_printed() {
                if std::env::var_os(super::server::CHILD).is_some() {
                    return main().unwrap();
                }
                let test = concat!(stringify!($name), "::runs_as_printed");
                super::prints_200(test, include_str!($file));
            }
        }
    };
}

program!(over_reqwest, "programs/reqwest.rs");
program!(over_hyper, "programs/hyper.rs");

fn prints_200(test: &str, program: &str) {
    assert!(
        README.contains(&format!("```rust\n{program}```\n")),
        "README prints another program than this:\n{program}"
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(server::Server::start());
    let output = server.child(test).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("200 OK"), "{printed}");
    assert_eq!(server.officernd.token_requests(), 1);
    assert_eq!(server.officernd.api_requests(), 1);
    assert_eq!(server.officernd.api_unauthorized(), 0);
}

#[test]
fn readme_prints_no_other_program() {
    assert_eq!(README.matches("```rust").count(), 2);
}
