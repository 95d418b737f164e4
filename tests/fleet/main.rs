//! The shared store against a real Redis and real processes.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what must hold"
)]

mod cold;
mod crash;
mod outage;
mod pods;
mod schedules;
mod server;
mod stores;
