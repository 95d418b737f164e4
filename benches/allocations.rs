//! What does a hit allocate, and how much larger is its future than the inner one?
//!
//! ```text
//! cargo bench -p benches --bench allocations             # prints
//! cargo bench -p benches --bench allocations -- --guard  # fails if a hit allocates, or its future has grown
//! ```
//!
//! A program of its own, because the counting allocator costs time.

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use common::contenders::{self, Contender, Use};
use common::{Effort, goal, has_arg, save, say};
use serde_json::json;
use tower::BoxError;

const REQUESTS: usize = 10_000;

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let contenders = contenders::all()?;
    let requests = effort.pick(REQUESTS, 100);
    let Some(baseline) = contenders.first() else {
        return Err("there are no contenders".into());
    };
    say(format!(
        "{:<12} {:<7} {:>7} {:>8} {:>9} {:>9}",
        "contender", "service", "allocs", "bytes", "future B", "over bare"
    ));
    let mut rows = Vec::new();
    let mut ours = Vec::new();
    for how in [Use::Held, Use::Cloned] {
        let (least, least_bytes) = per_request(baseline, how, requests);
        for contender in &contenders {
            let (name, future) = (contender.name, contender.future_bytes);
            let (count, bytes) = per_request(contender, how, requests);
            let (count, bytes) = (count - least, bytes - least_bytes);
            let over = future as f64 - baseline.future_bytes as f64;
            say(format!(
                "{name:<12} {:<7} {count:>7.2} {bytes:>8.1} {future:>9} {over:>+9}",
                how.name()
            ));
            rows.push(json!({
                "name": name, "use": how.name(), "allocations": count, "bytes": bytes,
                "future_bytes": future,
            }));
            if name == "ours" {
                ours.push((count, over));
            }
        }
    }
    say("allocs, bytes: a request, over the baseline's; a boxed future is small and allocates");
    let count = ours.iter().map(|(count, _)| *count).fold(0.0, f64::max);
    let over = ours.iter().map(|(_, over)| *over).fold(0.0, f64::max);
    goal("allocations per hit", count, 0.0);
    goal("bytes of the future over the inner one's", over, 0.0);
    save(effort, "allocations", &json!({ "rows": rows }))?;
    if has_arg("--guard") && (count > 0.0 || over > common::committed("future_bytes")?) {
        return Err("a hit allocates, or its future has grown".into());
    }
    Ok(())
}

/// Allocations and bytes a request. Only this thread's count.
fn per_request(contender: &Contender, how: Use, requests: usize) -> (f64, f64) {
    let mut lane = contender.lane(how);
    lane(3);
    let counted = allocation_counter::measure(|| lane(requests));
    let share = |total: u64| total as f64 / requests as f64;
    (share(counted.count_total), share(counted.bytes_total))
}
