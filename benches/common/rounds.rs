//! Times implementations in interleaved rounds on pinned threads.

use std::hint;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::hit::{Implementation, Loop, Use};
use super::{Effort, goal, quantile, say};

const THREADS: usize = 2;

/// How the service is used, and on how many threads at once.
const SCENES: [(Use, usize); 4] = [
    (Use::Held, 1),
    (Use::Held, 2),
    (Use::Cloned, 1),
    (Use::Cloned, 2),
];

/// The name of an implementation, and for each scene the highest ratio of this crate's added time to its.
pub(crate) type Goals = (&'static str, [Option<f64>; 4]);

pub(crate) const OVER_TOWER_HTTP: Goals = ("tower-http", [Some(2.0), Some(1.15), None, None]);

/// Prints the time that each implementation adds to a request, and the ratio of this crate's to it.
///
/// The figures are the median, the lowest and the highest of three runs.
pub(crate) fn compare(implementations: &[Implementation], goals: &[Goals]) {
    let effort = Effort::from_args();
    let mut runs = Vec::new();
    for _ in 0..effort.pick(3, 1) {
        let mut entries = Vec::new();
        for (how, threads) in SCENES {
            for implementation in implementations {
                entries.push((0..threads).map(|_| implementation.start(how)).collect());
            }
        }
        runs.push(time(entries, effort.pick(301, 2), effort.pick(2_000, 20)));
    }

    for (scene, (how, threads)) in SCENES.into_iter().enumerate() {
        let index = |name: &str| {
            let mut names = implementations.iter().map(|i| i.name);
            scene * implementations.len() + names.position(|other| other == name).unwrap_or(0)
        };
        // Each run has a baseline of its own.
        let added = |name: &str| -> Vec<f64> {
            let at = |times: &Vec<f64>, index| times.get(index).copied().unwrap_or(f64::NAN);
            let added = |times| at(times, index(name)) - at(times, index("bare"));
            runs.iter().map(added).collect()
        };
        let ours = added("ours");
        say(format!("{threads} thread(s), service {}", how.name()));
        say(format!(
            "  {:<12} {:>8} {:>15} {:>10} {:>13}",
            "", "added ns", "low-high", "ours/this", "low-high"
        ));
        for Implementation { name, .. } in implementations {
            if *name == "bare" {
                continue;
            }
            let added = added(name);
            let ratios: Vec<f64> = ours.iter().zip(&added).map(|(a, b)| a / b).collect();
            let [low, mid, high] = [0.0, 0.5, 1.0].map(|share| quantile(&added, share));
            let [least, ratio, most] = [0.0, 0.5, 1.0].map(|share| quantile(&ratios, share));
            say(format!(
                "  {name:<12} {mid:>8.1} {low:>7.1}-{high:<7.1} {ratio:>10.2} {least:>6.2}-{most:<6.2}"
            ));
            let goals = goals.iter().find(|(other, _)| other == name);
            let most = goals.and_then(|(_, goals)| *goals.get(scene)?);
            if let Some(most) = most.filter(|_| effort == Effort::Full) {
                goal(&format!("added time, relative to {name}'s"), ratio, most);
            }
        }
    }
}

/// Returns nanoseconds per request for each entry, which has one loop per thread: the lowest decile over all rounds.
/// In each round every entry has one turn of `batch` requests, in random order.
///
/// The median would move with the other programs on the machine; the lowest decile does not.
fn time(entries: Vec<Vec<Loop>>, rounds: usize, batch: usize) -> Vec<f64> {
    let threads_of: Vec<usize> = entries.iter().map(Vec::len).collect();
    let mut loops_of: Vec<Vec<Option<Loop>>> = (0..THREADS).map(|_| Vec::new()).collect();
    for entry in entries {
        let mut entry = entry.into_iter();
        for loops in &mut loops_of {
            loops.push(entry.next());
        }
    }
    let start_line = StartLine {
        barrier: Barrier::new(THREADS),
        arrived: AtomicUsize::new(0),
    };
    let order = order(rounds, threads_of.len());
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let turns: Vec<Vec<Vec<Turn>>> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, mut loops) in loops_of.into_iter().enumerate() {
            let (start_line, order, threads_of) = (&start_line, &order, &threads_of);
            let core = cores.get(index).copied();
            threads.push(scope.spawn(move || {
                core.map(core_affinity::set_for_current);
                let mut turns: Vec<Vec<Turn>> = loops.iter().map(|_| Vec::new()).collect();
                let mut shared = 0;
                for &entry in order {
                    let together = threads_of.get(entry) == Some(&THREADS);
                    shared += usize::from(together);
                    start_line.wait(together.then_some(shared));
                    if let (Some(Some(run)), Some(turns)) =
                        (loops.get_mut(entry), turns.get_mut(entry))
                    {
                        let start = Instant::now();
                        run(batch);
                        let end = Instant::now();
                        turns.push(Turn { start, end });
                    }
                }
                turns
            }));
        }
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.filter_map(Result::ok).collect()
    });
    assert_eq!(turns.len(), THREADS, "a thread panicked");
    let mut counted = rounds;
    let deciles = (0..threads_of.len()).map(|entry| {
        let samples = samples(&turns, entry, batch);
        counted = counted.min(samples.len());
        quantile(&samples, 0.1)
    });
    let deciles = deciles.collect();
    say(format!("{rounds} rounds, at least {counted} counted"));
    deciles
}

/// Returns the entry of each turn: all entries in a new random order per round.
fn order(rounds: usize, entries: usize) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(6_750);
    let mut round: Vec<usize> = (0..entries).collect();
    let mut order = Vec::new();
    for _ in 0..rounds {
        rng.shuffle(&mut round);
        order.extend_from_slice(&round);
    }
    order
}

/// The start of each turn, for both threads.
struct StartLine {
    barrier: Barrier,
    /// How often a thread has arrived at the start of a turn that both take.
    arrived: AtomicUsize,
}

impl StartLine {
    /// Waits for the other thread. `together` is the number of turns that both have taken, if both take this one.
    fn wait(&self, together: Option<usize>) {
        self.barrier.wait();
        let Some(turns) = together else {
            return;
        };
        // The barrier may release one thread tens of microseconds before the other.
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.arrived.load(Ordering::Acquire) < turns * THREADS {
            hint::spin_loop();
            spins = spins.wrapping_add(1);
            // On a single core, the other thread needs it to arrive.
            if spins % 1_024 == 0 {
                thread::yield_now();
            }
        }
    }
}

/// When a thread started and ended its turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    start: Instant,
    end: Instant,
}

/// Returns nanoseconds per request of each round, the mean of the threads.
///
/// Skips rounds in which the threads ran one after the other because one had to wait for its core: each would look
/// as fast as alone.
fn samples(turns: &[Vec<Vec<Turn>>], entry: usize, batch: usize) -> Vec<f64> {
    /// The share of the longer turn in which both threads ran.
    const OVERLAP: f64 = 0.8;

    let of_entry = || turns.iter().filter_map(|thread| thread.get(entry));
    let rounds = of_entry().map(Vec::len).max().unwrap_or(0);
    let mut samples = Vec::new();
    for round in 0..rounds {
        let both: Vec<Turn> = of_entry().filter_map(|t| t.get(round)).copied().collect();
        let lengths: Vec<f64> = both.iter().map(|t| nanos(t.start, t.end)).collect();
        let longest = lengths.iter().copied().fold(0.0, f64::max);
        let start = both.iter().map(|turn| turn.start).max();
        let end = both.iter().map(|turn| turn.end).min();
        let (Some(start), Some(end)) = (start, end) else {
            continue;
        };
        if nanos(start, end) >= OVERLAP * longest {
            let sum: f64 = lengths.iter().sum();
            samples.push(sum / lengths.len() as f64 / batch as f64);
        }
    }
    samples
}

fn nanos(start: Instant, end: Instant) -> f64 {
    end.saturating_duration_since(start).as_nanos() as f64
}
