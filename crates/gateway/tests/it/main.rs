//! The gateway as a process of its own, on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test says what must hold, by a stopwatch"
)]

mod check;
mod child;
mod clients;
mod configuration;
mod crowd;
mod deploy;
mod fleet;
mod folder;
mod forward;
mod leaving;
mod network;
mod organizations;
mod out;
mod refuse;
mod sockets;
mod start;
mod tricks;
