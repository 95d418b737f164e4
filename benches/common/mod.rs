//! Parts that several benches use.
//!
//! The harness is not criterion or divan, which time one implementation after the other. The differences here are a
//! few nanoseconds, and other programs slow a shared machine by half for seconds at a time, so all implementations
//! have to take turns every half millisecond.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench has no `Clock`")]

pub(crate) mod hit;
pub(crate) mod lazy;
pub(crate) mod minimal;
pub(crate) mod rounds;
pub(crate) mod world;

/// How much a bench does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// `cargo bench`: measures.
    Full,
    /// `cargo test --benches`: runs everything once.
    Once,
}

impl Effort {
    /// Like criterion: only `cargo bench` passes `--bench`.
    pub(crate) fn from_args() -> Self {
        match has_arg("--bench") {
            true => Self::Full,
            false => Self::Once,
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

pub(crate) fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// Prints whether a figure is within its goal.
pub(crate) fn goal(what: &str, figure: f64, most: f64) {
    let verdict = if figure <= most { "met" } else { "missed" };
    say(format!(
        "goal {verdict}: {what}: {figure:.2} (at most {most})"
    ));
}

/// Returns the value at this share of the sorted samples.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).floor() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
