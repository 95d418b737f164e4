//! The integration tests: one binary, a module a topic.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what must hold"
)]

mod compiles;
mod leaks;
mod middleware;
mod readiness;
mod retry;
mod settings;
mod simulator;
mod stack;
mod store;
