//! `SharedTokenProvider` over a store in memory, with the clock paused.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what must hold"
)]

mod down;
mod faults;
mod observability;
mod rotation;
mod sharing;
mod support;
