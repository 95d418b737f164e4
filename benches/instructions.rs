//! How many instructions does a hit take?
//!
//! ```text
//! cargo bench -p benches --bench instructions             # prints
//! cargo bench -p benches --bench instructions -- --guard  # fails if a hit takes over 5 % more than figures.json says
//! cargo bench -p benches --bench instructions -- --renew  # writes benches/figures.json
//! ```
//!
//! valgrind's callgrind runs this program with 2,000 and with 12,000 requests and counts in the loop alone; the
//! difference is the count of 10,000. Unlike time, a count does not depend on other programs. But it does not include
//! what an atomic operation costs, and valgrind turns a clock reading into a system call, which counts as next to
//! nothing. (gungraun and iai-callgrind need a runner of exactly their version, and count the setup too.)

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::fs;
use std::process::Command;

use common::hit::{self, COUNTED, Implementation, Use};
use common::{Effort, goal, has_arg, say};
use serde_json::{Value, json};
use tower::BoxError;

/// A hit may take this many times the committed count.
const TOLERANCE: f64 = 1.05;
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.json");

fn main() -> Result<(), BoxError> {
    if has_arg("--loop") {
        return only_loop();
    }
    let effort = Effort::from_args();
    let implementations = hit::all()?;
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("skipped: valgrind is not installed, so no instruction was counted");
        return Ok(());
    }
    let mut figures = json!({
        "what": "instructions that a hit adds to the inner service",
        "rustc": rustc(),
    });
    for how in Use::ALL {
        let mut counts = Vec::new();
        for implementation in &implementations {
            counts.push((implementation.name, count(implementation, how, effort)?));
        }
        let of = |name: &str| {
            let mut all = counts.iter();
            all.find(|(other, _)| *other == name)
                .map_or(f64::NAN, |(_, count)| *count)
        };
        let added = |name| of(name) - of("bare");
        say(format!("service {}", how.name()));
        say(format!(
            "  {:<12} {:>8} {:>8} {:>14} {:>11}",
            "", "all", "added", "to tower-http", "to minimal"
        ));
        for (name, count) in &counts {
            say(format!(
                "  {name:<12} {count:>8.1} {:>8.1} {:>14.2} {:>11.2}",
                added(name),
                added(name) / added("tower-http"),
                added(name) / added("minimal")
            ));
        }
        let ours = added("ours");
        if effort == Effort::Full && how != Use::Cloned {
            goal(
                "instructions relative to minimal's",
                ours / added("minimal"),
                1.15,
            );
        }
        if let Some(figures) = figures.as_object_mut() {
            figures.insert(how.name().to_owned(), ours.into());
        }
        if has_arg("--guard") {
            guard(how, ours)?;
        }
    }
    if has_arg("--renew") {
        fs::write(FIGURES, format!("{figures:#}\n"))?;
    }
    Ok(())
}

/// Runs under callgrind, with the arguments that `collected` gives.
fn only_loop() -> Result<(), BoxError> {
    let mut args = std::env::args().skip_while(|arg| arg != "--loop").skip(1);
    let mut next = || args.next().unwrap_or_default();
    let (name, used, requests) = (next(), next(), next().parse()?);
    let how = Use::ALL.into_iter().find(|how| how.name() == used);
    let how = how.ok_or("no such use")?;
    let implementations = hit::all()?;
    let implementation = implementations.iter().find(|i| i.name == name);
    implementation.ok_or("no such implementation")?.start(how)(requests);
    Ok(())
}

/// Returns instructions per request.
fn count(implementation: &Implementation, how: Use, effort: Effort) -> Result<f64, BoxError> {
    let (few, many) = effort.pick((2_000, 12_000), (20, 120));
    let difference = collected(implementation, how, many)? - collected(implementation, how, few)?;
    Ok(difference / f64::from(many - few))
}

/// Runs this program under callgrind and returns its count.
fn collected(implementation: &Implementation, how: Use, requests: u32) -> Result<f64, BoxError> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(std::env::current_exe()?)
        .args(["--loop", implementation.name, how.name()])
        .arg(requests.to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .ok_or_else(|| format!("callgrind counted nothing: {text}"))?;
    Ok(collected.1.trim().parse()?)
}

/// Compares a count with the committed one.
fn guard(how: Use, added: f64) -> Result<(), BoxError> {
    let figures: Value = serde_json::from_str(&fs::read_to_string(FIGURES)?)?;
    let committed = figures.get(how.name()).and_then(Value::as_f64);
    let committed =
        committed.ok_or_else(|| format!("benches/figures.json has no {}", how.name()))?;
    let share = added / committed;
    say(format!(
        "guard: {added:.1} instructions, {committed:.1} committed, ratio {share:.3}"
    ));
    if share.is_nan() || share > TOLERANCE {
        let with = figures.get("rustc").and_then(Value::as_str);
        return Err(format!(
            "a hit adds {added:.1} instructions, over 5 % more than the {committed:.1} of benches/figures.json \
             (counted with {}; this is {})",
            with.unwrap_or("?"),
            rustc(),
        )
        .into());
    }
    if share < 2.0 - TOLERANCE {
        say("guard: over 5 % fewer instructions than committed; commit them with `-- --renew`");
    }
    Ok(())
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("-V").output();
    let version = output.ok().and_then(|o| String::from_utf8(o.stdout).ok());
    version.map_or_else(|| "rustc ?".to_owned(), |text| text.trim().to_owned())
}
