//! What does a hit cost, on one thread, over the service below it?
//!
//! ```text
//! cargo bench -p benches --bench hit
//! ```

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use common::contenders::{self, SHARED, Use};
use common::rounds::{self, Entry, Plan};
use common::{Effort, goal, save, say};
use serde_json::json;
use tower::BoxError;

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let contenders = contenders::all()?;
    let entries: Vec<Entry> = contenders.iter().map(|c| vec![c.lane(Use::Held)]).collect();
    let times = rounds::time(Plan::new(effort), entries);
    let time_of = |name: &str| {
        let mut all = contenders.iter().zip(&times);
        all.find(|(c, _)| c.name == name)
            .map_or(f64::NAN, |(_, time)| *time)
    };
    let baseline = time_of("bare");
    let peer = time_of("tower-http") - baseline;

    say(format!(
        "{:<12} {:>8} {:>8} {:>6}  what",
        "contender", "ns", "added", "ratio"
    ));
    let mut rows = Vec::new();
    for (contender, time) in contenders.iter().zip(&times) {
        let added = time - baseline;
        let (name, what) = (contender.name, contender.what);
        say(format!(
            "{name:<12} {time:>8.1} {added:>8.1} {:>6.2}  {what}",
            added / peer
        ));
        rows.push(json!({ "name": name, "ns": time, "added": added, "ratio": added / peer }));
    }
    say("ratio: added time, as a multiple of tower-http's");
    if effort == Effort::Full {
        let ours = (time_of("ours") - baseline) / peer;
        goal("added ns over tower-http's, 1 thread", ours, 1.0);
        let shared = (time_of(SHARED) - baseline) / (time_of("ours") - baseline);
        goal("added ns with a store, over those without", shared, 1.05);
    }
    save(effort, "hit", &json!({ "rows": rows }))?;
    Ok(())
}
