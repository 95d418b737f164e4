//! What does a hit cost when two threads share the layer, with the service held or cloned per request?
//!
//! ```text
//! cargo bench -p benches --bench contention
//! ```

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use common::contenders::{self, Use};
use common::rounds::{self, Entry, Plan};
use common::{Effort, goal, say};
use tower::BoxError;

const SCENES: [(Use, usize); 4] = [
    (Use::Held, 1),
    (Use::Held, 2),
    (Use::Cloned, 1),
    (Use::Cloned, 2),
];

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let contenders = contenders::all()?;
    let mut entries: Vec<Entry> = Vec::new();
    for (how, threads) in SCENES {
        for contender in &contenders {
            entries.push((0..threads).map(|_| contender.lane(how)).collect());
        }
    }
    let times = rounds::time(Plan::new(effort), entries);

    for ((how, threads), times) in SCENES.into_iter().zip(times.chunks(contenders.len())) {
        let time_of = |name: &str| {
            let mut all = contenders.iter().zip(times);
            all.find(|(c, _)| c.name == name)
                .map_or(f64::NAN, |(_, time)| *time)
        };
        let baseline = time_of("bare");
        let peer = time_of("tower-http") - baseline;
        say(format!("{threads} thread(s), service {}", how.name()));
        say(format!(
            "  {:<12} {:>8} {:>8} {:>6}",
            "contender", "ns", "added", "ratio"
        ));
        for (contender, time) in contenders.iter().zip(times) {
            let (name, added) = (contender.name, time - baseline);
            say(format!(
                "  {name:<12} {time:>8.1} {added:>8.1} {:>6.2}",
                added / peer
            ));
        }
        // It depends on which cores the machine gives us today, and the goals for
        // two threads depend on it.
        let shared = time_of("limit") - time_of("unshared");
        say(format!(
            "  a reference count that is shared costs {shared:.1} ns here"
        ));
        if effort == Effort::Full {
            let most = match (how, threads) {
                (Use::Held, 1) => 1.0,
                (Use::Held, _) => 0.65,
                (Use::Cloned, 1) | (Use::WithHost, _) => continue,
                (Use::Cloned, _) => 1.1,
            };
            let what = format!(
                "added ns over tower-http's, {threads} thread(s), {}",
                how.name()
            );
            goal(&what, (time_of("ours") - baseline) / peer, most);
        }
    }
    say("ratio: added time, as a multiple of tower-http's in the same scene");
    Ok(())
}
