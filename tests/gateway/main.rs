//! The gateway example, as a process of its own: this binary runs it, and the
//! load generator, by running itself again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test says what must hold, by a stopwatch"
)]

mod browser;
mod child;
mod clients;
mod forward;
mod leaving;
mod load;
mod page;
mod refuse;
mod start;
mod tricks;

#[path = "../../examples/gateway/main.rs"]
mod gateway;

/// Not a test: what this binary is when it runs itself.
#[test]
fn another_process() {
    match std::env::var(child::ROLE).as_deref() {
        Ok("gateway") => {
            let ended = format!("{:?}", gateway::main());
            assert_eq!(ended, format!("{:?}", std::process::ExitCode::SUCCESS));
        }
        Ok("load") => load::generate(),
        _ => {}
    }
}
