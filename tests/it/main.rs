//! The integration tests: one binary, a module a topic.

mod compiles;
mod leaks;
mod middleware;
mod readiness;
mod retry;
mod settings;
mod stack;
