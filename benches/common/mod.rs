//! What the benches share.
//!
//! The harness is our own, and small, because what is asked is a difference of
//! a few nanoseconds on machines where neighbours slow whole seconds down by
//! half: the contenders have to take turns every half millisecond. criterion
//! and divan time one after the other.

#![expect(clippy::print_stdout, reason = "a bench is there to print")]
#![expect(clippy::disallowed_methods, reason = "a bench has no `Clock`")]

pub(crate) mod contenders;
pub(crate) mod duties;
pub(crate) mod endpoint;
pub(crate) mod rounds;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tower::BoxError;

/// How much a bench does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// `cargo bench`: measures.
    Full,
    /// `cargo test --benches`, `cargo bench -- --test`: runs everything once.
    Once,
}

impl Effort {
    /// As criterion has it: only `cargo bench` passes `--bench`.
    pub(crate) fn from_args() -> Self {
        if has_arg("--bench") && !has_arg("--test") {
            Self::Full
        } else {
            Self::Once
        }
    }

    pub(crate) fn pick<T>(self, full: T, once: T) -> T {
        match self {
            Self::Full => full,
            Self::Once => once,
        }
    }
}

pub(crate) fn has_arg(name: &str) -> bool {
    std::env::args().skip(1).any(|arg| arg == name)
}

/// What follows the argument `name`.
pub(crate) fn arg_after(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// One goal: the figure, and what it should be at most.
pub(crate) fn goal(what: &str, figure: f64, most: f64) {
    let verdict = if figure <= most { "met" } else { "missed" };
    say(format!(
        "goal {verdict}: {what}: {figure:.2} (at most {most})"
    ));
}

/// The value at this share of the sorted samples.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).floor() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// `target/bench-figures`, beside the profile that this program was built in.
pub(crate) fn figures_dir() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).unwrap_or(&program);
    let dir = target.join("bench-figures");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

pub(crate) fn rustc() -> String {
    let output = Command::new("rustc").arg("-V").output();
    let version = output.ok().and_then(|o| String::from_utf8(o.stdout).ok());
    version.map_or_else(|| "rustc ?".to_owned(), |text| text.trim().to_owned())
}

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.json");

/// A figure that the guards compare with.
pub(crate) fn committed(name: &str) -> Result<f64, BoxError> {
    let figures: Value = serde_json::from_str(&fs::read_to_string(COMMITTED)?)?;
    let figure = figures.get(name).and_then(Value::as_f64);
    figure.ok_or_else(|| format!("{COMMITTED} has no {name}").into())
}

/// The compiler that the committed figures were made with.
pub(crate) fn committed_by() -> Result<String, BoxError> {
    let figures: Value = serde_json::from_str(&fs::read_to_string(COMMITTED)?)?;
    let rustc = figures.get("rustc").and_then(Value::as_str);
    Ok(rustc.unwrap_or("rustc ?").to_owned())
}

/// Writes what the guards compare with.
pub(crate) fn commit(counted: &Map<String, Value>, future_bytes: usize) -> Result<(), BoxError> {
    let mut figures = json!({
        "what": "ours over the inner service alone, a hit",
        "allocations": 0,
        "future_bytes": future_bytes,
        "rustc": rustc(),
    });
    if let Some(figures) = figures.as_object_mut() {
        figures.extend(counted.clone());
    }
    Ok(fs::write(COMMITTED, format!("{figures:#}\n"))?)
}
