//! The programs that README and the cookbook show, run as they are printed: each is a process of its own that talks
//! TLS to a simulator behind the names of the real service.

#![cfg(target_os = "linux")]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what must hold; the programs print"
)]

mod check;
#[path = "../../examples/check.rs"]
#[expect(dead_code, reason = "the test calls what `main` calls")]
mod check_example;
mod outcome;
mod printed;
mod server;

use std::process::{Command, Stdio};

use self::server::Server;

/// Set in the child process, which runs the program instead of checking it.
const CHILD: &str = "PAGES_TEST_IS_THE_PROGRAM";

/// A module for each program, with a test that runs it and checks the outcome.
macro_rules! programs {
    ($($name:ident, $file:literal, $outcome:ident;)*) => {
        $(mod $name {
            include!(concat!("programs/", $file));

            #[test]
            fn runs_as_printed() {
                if std::env::var_os(super::CHILD).is_some() {
                    return main().unwrap();
                }
                super::outcome::$outcome(concat!(stringify!($name), "::runs_as_printed"));
            }
        })*
    };
}

programs! {
    first, "reqwest.rs", prints_200;
    hyper_client, "hyper.rs", prints_200;
    axum_service, "axum.rs", serves_and_becomes_ready;
    replay, "replay.rs", replays_after_a_401;
    figment_settings, "toml.rs", prints_200;
    config_settings, "config.rs", prints_200;
    error_mapping, "errors.rs", maps_errors;
    several_organizations, "organizations.rs", sends_each_token_to_its_own_service;
    vault_credentials, "vault.rs", takes_credentials_from_vault;
    full_stack, "full_stack.rs", traces_without_the_token;
    reqwest_middleware_client, "reqwest_middleware.rs", replays_after_a_401;
}

/// The program's `reqwest` is version 0.12.
mod old_reqwest {
    use reqwest012 as reqwest;

    include!("programs/reqwest_0_12.rs");

    #[test]
    fn runs_as_printed() {
        if std::env::var_os(super::CHILD).is_some() {
            return main().unwrap();
        }
        super::outcome::prints_200_over_plain_http("old_reqwest::runs_as_printed");
    }
}

/// The program is a test.
mod service_test {
    include!("programs/service_test.rs");
}

/// This test again, as a program that has the variables of the README and reaches nothing but the server.
fn child(test: &str, server: &Server) -> Command {
    let officernd = server.officernd();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env(CHILD, "1")
        .env("OFFICERND_CLIENT_ID", officernd.client_id())
        .env("OFFICERND_CLIENT_SECRET", officernd.client_secret())
        .env("APP__OFFICERND__CLIENT_SECRET", officernd.client_secret())
        .env("OFFICERND_SCOPES", "officernd.api.read")
        .env("OFFICERND_API_URL", server.url())
        .env("STAGING_CLIENT_ID", server.staging().client_id())
        .env("STAGING_CLIENT_SECRET", server.staging().client_secret())
        .env("LISTEN", "127.0.0.1:0")
        // reqwest reads this one, and what loads the root certificates reads the other.
        .env("HTTPS_PROXY", server.proxy())
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("SSL_CERT_FILE", server.root_certificate())
        .stdin(Stdio::null());
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
