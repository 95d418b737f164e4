//! Interleaved rounds on pinned threads.

use std::hint;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::contenders::Lane;
use super::{Effort, now, quantile, say};

/// So many threads at most.
const THREADS: usize = 2;

/// One thing to time: a lane for each thread that runs it at the same time.
pub(crate) type Entry = Vec<Lane>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    rounds: usize,
    /// Requests a turn: about half a millisecond.
    batch: usize,
}

impl Plan {
    pub(crate) fn new(effort: Effort) -> Self {
        Self {
            rounds: effort.pick(301, 2),
            batch: effort.pick(2_000, 20),
        }
    }
}

/// Nanoseconds a request, for each entry: the lowest decile over rounds in
/// which every entry has one turn, in a new order each.
///
/// The lowest decile is what the code takes when the neighbours leave it
/// alone; a median moves with them. For two threads, of the rounds in which
/// both really ran at the same time: on a busy machine one often waits for its
/// core while the other is done, and each would look as if it were alone.
pub(crate) fn time(plan: Plan, entries: Vec<Entry>) -> Vec<f64> {
    let count = entries.len();
    let orders = orders(plan.rounds, count);
    let mut wide = Vec::new();
    let mut seats: Vec<Vec<Option<Lane>>> = (0..THREADS).map(|_| Vec::new()).collect();
    for entry in entries {
        wide.push(entry.len() > 1);
        let mut lanes = entry.into_iter();
        for seat in &mut seats {
            seat.push(lanes.next());
        }
    }
    let course = Course {
        plan,
        orders,
        wide,
        turn: Barrier::new(THREADS),
        gate: AtomicUsize::new(0),
    };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let turns: Vec<Vec<Vec<Turn>>> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, lanes) in seats.into_iter().enumerate() {
            let course = &course;
            let core = cores.get(index).copied();
            threads.push(scope.spawn(move || {
                core.map(core_affinity::set_for_current);
                course.run(lanes)
            }));
        }
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.filter_map(Result::ok).collect()
    });
    assert_eq!(turns.len(), THREADS, "a thread panicked");
    let mut least = plan.rounds;
    let deciles = (0..count).map(|entry| {
        let samples = samples(&turns, entry, plan.batch);
        least = least.min(samples.len());
        quantile(&samples, 0.1)
    });
    let deciles = deciles.collect();
    say(format!(
        "{} rounds, at least {least} of them counted",
        plan.rounds
    ));
    deciles
}

/// A thread's turn at an entry.
#[derive(Debug, Clone, Copy)]
struct Turn {
    start: Instant,
    end: Instant,
}

struct Course {
    plan: Plan,
    orders: Vec<Vec<usize>>,
    /// Which entries run on both threads.
    wide: Vec<bool>,
    turn: Barrier,
    /// How often a thread has come to the start of a turn for both.
    gate: AtomicUsize,
}

impl Course {
    /// One thread's turns at each entry, a round each.
    fn run(&self, mut lanes: Vec<Option<Lane>>) -> Vec<Vec<Turn>> {
        let mut turns: Vec<Vec<Turn>> = lanes.iter().map(|_| Vec::new()).collect();
        let mut opened = 0;
        for &entry in self.orders.iter().flatten() {
            self.turn.wait();
            let Some(Some(lane)) = lanes.get_mut(entry) else {
                continue;
            };
            if self.wide.get(entry).is_some_and(|wide| *wide) {
                opened += THREADS;
                self.start_together(opened);
            }
            let start = now();
            lane(self.plan.batch);
            let end = now();
            if let Some(turns) = turns.get_mut(entry) {
                turns.push(Turn { start, end });
            }
        }
        turns
    }

    /// The barrier lets one thread go tens of microseconds before the other.
    fn start_together(&self, opened: usize) {
        self.gate.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.gate.load(Ordering::Acquire) < opened {
            hint::spin_loop();
            spins = spins.wrapping_add(1);
            // With one core only, the other thread needs it to get here.
            if spins % 1_024 == 0 {
                thread::yield_now();
            }
        }
    }
}

fn orders(rounds: usize, entries: usize) -> Vec<Vec<usize>> {
    let mut dice = fastrand::Rng::with_seed(6_750);
    let mut order: Vec<usize> = (0..entries).collect();
    let mut orders = Vec::new();
    for _ in 0..rounds {
        dice.shuffle(&mut order);
        orders.push(order.clone());
    }
    orders
}

/// Nanoseconds a request in each round that counts: the mean of the threads.
fn samples(turns: &[Vec<Vec<Turn>>], entry: usize, batch: usize) -> Vec<f64> {
    /// The threads share so much of the longer turn.
    const SHARED: f64 = 0.8;

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
        if nanos(start, end) >= SHARED * longest {
            let sum: f64 = lengths.iter().sum();
            samples.push(sum / lengths.len() as f64 / batch as f64);
        }
    }
    samples
}

fn nanos(start: Instant, end: Instant) -> f64 {
    end.saturating_duration_since(start).as_nanos() as f64
}
