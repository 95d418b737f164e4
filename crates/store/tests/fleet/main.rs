//! `SharedTokenProvider` with real Redis servers, files and processes.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what must hold; a program prints"
)]

mod cluster;
mod cold;
mod crash;
mod differential;
mod files;
mod fuzz;
mod link;
mod newcomer;
mod outage;
mod pods;
mod scale;
mod schedules;
mod sentinel;
mod stores;
