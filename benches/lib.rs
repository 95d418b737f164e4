//! Empty: this package holds benches, and tests that run optimized.
