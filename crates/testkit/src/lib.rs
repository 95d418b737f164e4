//! Helpers for the tests of several packages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::panic,
    reason = "a test says what must hold"
)]

pub mod memory;
pub mod page;
#[cfg(unix)]
pub mod redis;
