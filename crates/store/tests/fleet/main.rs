//! The shared store against a real Redis and real processes.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what must hold"
)]

mod cluster;
mod cold;
mod crash;
mod differential;
mod files;
mod fuzz;
mod link;
mod outage;
mod pods;
mod scale;
mod schedules;
mod sentinel;
mod stores;
