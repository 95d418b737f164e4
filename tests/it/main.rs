//! The integration tests: one binary, a module a topic.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what must hold"
)]

mod cache_life;
mod compiles;
mod config;
mod failure;
mod faults;
mod flight;
mod fuzz;
mod http_provider;
mod keep_warm;
mod leaks;
mod middleware;
mod observability;
mod organizations;
mod rate_limit;
mod raw;
mod readiness;
mod rejection;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_client_middleware;
mod retry;
mod rotation;
mod runtimes;
mod scopes;
mod settings;
mod status;
mod support;
mod unauthorized_days;
mod wrapper;
