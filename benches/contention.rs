//! How much time does a hit add when two threads share the layer, with the service held or cloned per request?
//!
//! ```text
//! cargo bench -p benches --bench contention
//! ```

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use common::hit;
use common::rounds::{OVER_TOWER_HTTP, compare};
use tower::BoxError;

fn main() -> Result<(), BoxError> {
    compare(&hit::all()?, &[OVER_TOWER_HTTP]);
    Ok(())
}
