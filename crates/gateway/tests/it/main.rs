//! The gateway as a process of its own, and a load generator as another: this
//! binary, run again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test says what must hold, by a stopwatch"
)]

mod answers;
mod browser;
mod child;
mod clients;
mod configuration;
mod crowd;
mod deploy;
mod fleet;
mod folder;
mod forward;
mod leaving;
mod load;
mod organizations;
mod page;
mod refuse;
mod sockets;
mod start;
mod tricks;

/// Not a test: what this binary is when it runs itself.
#[test]
fn load_generator() {
    if std::env::var_os(child::LOAD).is_some() {
        load::generate();
    }
}
