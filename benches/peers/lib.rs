//! Empty: this package holds a bench.
