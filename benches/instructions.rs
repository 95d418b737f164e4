//! How many instructions does a hit take?
//!
//! ```text
//! cargo bench -p benches --bench instructions             # prints
//! cargo bench -p benches --bench instructions -- --guard  # fails if ours takes over 5 % more than benches/figures.json says
//! cargo bench -p benches --bench instructions -- --renew  # writes benches/figures.json
//! ```
//!
//! valgrind's callgrind runs this very program over 2,000 and over 12,000
//! requests and counts in the loop alone; the difference is what 10,000 take.
//! (gungraun and iai-callgrind would want a runner installed, of just the
//! right version, and count set-up too.) Unlike time, a count does not depend
//! on the neighbours; but it does not see what an atomic costs, and valgrind
//! turns a clock read into a system call, which counts as next to nothing.

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::path::Path;
use std::process::Command;

use common::contenders::{self, COUNTED, Contender, SHARED, Use};
use common::{Effort, arg_after, figures_dir, goal, has_arg, say};
use tower::BoxError;

/// A hit may take this many times the committed count.
const TOLERANCE: f64 = 1.05;

fn main() -> Result<(), BoxError> {
    if let Some(contender) = arg_after("--loop") {
        return only_loop(&contender);
    }
    let effort = Effort::from_args();
    let contenders = contenders::all()?;
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("skipped: valgrind is not installed, so no instruction was counted");
        return Ok(());
    }
    let guard = has_arg("--guard");
    let scenes: &[Use] = if guard {
        &[Use::Held, Use::WithHost]
    } else {
        &[Use::Held, Use::WithHost, Use::Cloned]
    };
    let mut added_by_use = Vec::new();
    for &how in scenes {
        let mut counts = Vec::new();
        for contender in &contenders {
            let wanted = matches!(
                contender.name,
                "bare" | "duties" | "tower-http" | "ours" | "organization" | SHARED
            );
            if wanted || !guard && effort == Effort::Full {
                counts.push((contender, count(contender, how, effort)?));
            }
        }
        let of = |name: &str| {
            let mut all = counts.iter();
            all.find(|(c, _)| c.name == name)
                .map_or(f64::NAN, |(_, count)| *count)
        };
        let baseline = of("bare");
        let (peer, least) = (of("tower-http") - baseline, of("duties") - baseline);
        say(how.what());
        for (contender, count) in &counts {
            let (name, added) = (contender.name, count - baseline);
            let (over_peer, over_least) = (added / peer, added / least);
            say(format!(
                "  {name:<12} {count:>8.1} {added:>+8.1} {over_peer:>6.2} {over_least:>6.2}"
            ));
        }
        let ours = of("ours") - baseline;
        added_by_use.push((how, ours));
        if effort == Effort::Full && how != Use::Cloned {
            let what = format!("instructions over the duties', {}", how.what());
            goal(&what, ours / least, 1.15);
        }
        let with_store = of(SHARED) / of("ours");
        if guard && (with_store.is_nan() || with_store > 1.01) {
            return Err("a store shows in the cost of a hit".into());
        }
    }
    say(
        "columns: instructions a request, over the baseline; that over tower-http's, over the duties'",
    );
    if guard {
        let mut guarded = added_by_use.into_iter();
        return guarded.try_for_each(|(how, added)| check(how, added));
    }
    if has_arg("--renew") {
        let future = contenders.iter().find(|c| c.name == "ours");
        let future = future.map_or(0, |c| c.future_bytes);
        let inner = contenders.first().map_or(0, |c| c.future_bytes);
        let counted: serde_json::Map<_, _> = added_by_use
            .into_iter()
            .map(|(how, added)| (format!("instructions_{}", how.name()), added.into()))
            .collect();
        common::commit(&counted, future.saturating_sub(inner))?;
    }
    Ok(())
}

/// What callgrind runs.
fn only_loop(name: &str) -> Result<(), BoxError> {
    let requests = arg_after("--requests").unwrap_or_default().parse()?;
    let uses = [Use::Held, Use::Cloned, Use::WithHost];
    let mut named = uses.into_iter();
    let Some(how) = named.find(|how| has_arg(&format!("--{}", how.name()))) else {
        return Err("no use is named".into());
    };
    let contenders = contenders::all()?;
    let Some(contender) = contenders.iter().find(|c| c.name == name) else {
        return Err(format!("there is no contender {name}").into());
    };
    let mut lane = contender.lane(how);
    lane(requests);
    Ok(())
}

fn count(contender: &Contender, how: Use, effort: Effort) -> Result<f64, BoxError> {
    let dir = figures_dir()?;
    let profile = dir.join(format!("callgrind.{}.{}", contender.name, how.name()));
    let few = effort.pick(2_000, 20);
    let many = effort.pick(12_000, 120);
    let first = collected(contender, how, few, Path::new("/dev/null"))?;
    let second = collected(contender, how, many, &profile)?;
    Ok((second - first) / (many - few) as f64)
}

/// Runs this program under callgrind; the profile is for `callgrind_annotate`.
fn collected(
    contender: &Contender,
    how: Use,
    requests: usize,
    profile: &Path,
) -> Result<f64, BoxError> {
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(["--loop", contender.name])
        .args(["--requests", &requests.to_string()])
        .arg(format!("--{}", how.name()))
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .ok_or_else(|| format!("callgrind counted nothing: {text}"))?;
    Ok(collected.1.trim().parse()?)
}

fn check(how: Use, added: f64) -> Result<(), BoxError> {
    let committed = common::committed(&format!("instructions_{}", how.name()))?;
    let share = added / committed;
    say(format!(
        "guard: {}: {added:.1} instructions a hit over the baseline, committed {committed:.1}, {share:.3} of it",
        how.what()
    ));
    if share > TOLERANCE {
        return Err(format!(
            "a hit takes {added:.1} instructions over the baseline, over 5 % more than the \
             {committed:.1} of benches/figures.json (made with {}; this is {})",
            common::committed_by()?,
            common::rustc(),
        )
        .into());
    }
    if share < 2.0 - TOLERANCE {
        say("guard: that is over 5 % better; keep it with `-- --renew`");
    }
    Ok(())
}
