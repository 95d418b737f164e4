//! Ticks, which release builds on Linux have, as arguments.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::cache::TokenCache;
use crate::cache::lifetime::RefreshPolicy;
use crate::clock::{Age, Now, Sleep, TokioClock};
use crate::provider::provider_fn;
use crate::token::AccessToken;

const LIFE: Duration = Duration::from_secs(3600);

fn cached(name: &str, generation: u64) -> CachedToken {
    let now = Now::read(&TokioClock);
    let token = AccessToken::bearer(name, LIFE).unwrap();
    let minted = (
        token.with_generation(generation),
        Age::starting(now.monotonic, now.wall),
    );
    let policy = RefreshPolicy::default();
    let issued = IssuedToken::replacing(None, &policy, minted, (generation, 0.0), now).unwrap();
    CachedToken::new(TokenId::new(&Weak::new(), generation), Arc::new(issued))
}

/// A clock that stands still.
#[derive(Debug)]
struct Stopped(Instant);

impl Clock for Stopped {
    fn now(&self) -> Instant {
        self.0
    }

    fn wall(&self) -> SystemTime {
        TokioClock.wall()
    }

    fn sleep_until(&self, until: Instant) -> Sleep {
        TokioClock.sleep_until(until)
    }
}

/// What requests of one thread get at these ticks, when a look says this, and
/// whether there was a look.
struct Requests<'a> {
    token: &'a CachedToken,
    clock: &'a dyn Clock,
    looks: Cell<usize>,
}

impl<'a> Requests<'a> {
    fn new(token: &'a CachedToken, clock: &'a dyn Clock) -> Self {
        let looks = Cell::new(0);
        Self {
            token,
            clock,
            looks,
        }
    }

    /// Whether the request carries the token, and whether both clocks were read.
    fn at(&self, tick: u64, verdict: Verdict) -> (bool, bool) {
        let before = self.looks.get();
        let header = self.token.header_at(tick, self.clock, || {
            self.looks.set(before + 1);
            verdict
        });
        (header.is_some(), self.looks.get() > before)
    }
}

#[test]
fn a_fresh_token_is_believed_for_one_tick() {
    let token = cached("a", 1);
    let requests = Requests::new(&token, &TokioClock);
    assert_eq!(requests.at(1, Verdict::Fresh), (true, true));
    for _ in 0..100 {
        // The look would say no.
        assert_eq!(requests.at(1, Verdict::Unusable), (true, false));
    }
    assert_eq!(requests.at(2, Verdict::Fresh), (true, true));
    assert_eq!(requests.at(2, Verdict::Unusable), (true, false));
}

#[test]
fn a_token_dies_at_the_next_tick_whichever_way_the_clock_went() {
    for next in [0, 1, 9, 11, u64::MAX] {
        let token = cached("a", 1);
        let requests = Requests::new(&token, &TokioClock);
        assert_eq!(requests.at(10, Verdict::Fresh), (true, true));
        for _ in 0..3 {
            assert_eq!(
                requests.at(next, Verdict::Unusable),
                (false, true),
                "{next}"
            );
        }
    }
}

#[test]
fn a_tick_that_stands_still_keeps_no_token_alive() {
    let token = cached("a", 1);
    let requests = Requests::new(&token, &TokioClock);
    // As often as a look says that it is fresh, and not once for all.
    for _ in 0..3 {
        assert_eq!(requests.at(1, Verdict::Fresh), (true, true));
        for _ in 0..MAX_USES {
            assert_eq!(requests.at(1, Verdict::Unusable), (true, false));
        }
    }
    for _ in 0..3 {
        assert_eq!(requests.at(1, Verdict::Unusable), (false, true));
    }
}

#[test]
fn only_a_fresh_token_is_believed() {
    let token = cached("a", 1);
    let requests = Requests::new(&token, &TokioClock);
    for verdict in [Verdict::Usable, Verdict::Unusable] {
        for _ in 0..3 {
            let usable = verdict == Verdict::Usable;
            assert_eq!(requests.at(1, verdict), (usable, true), "{verdict:?}");
        }
    }
    // Nor does an earlier tick come back.
    assert_eq!(requests.at(1, Verdict::Fresh), (true, true));
    assert_eq!(requests.at(2, Verdict::Usable), (true, true));
    assert_eq!(requests.at(2, Verdict::Unusable), (false, true));
}

#[test]
fn without_ticks_every_request_looks() {
    let token = cached("a", 1);
    let requests = Requests::new(&token, &TokioClock);
    for _ in 0..3 {
        assert_eq!(requests.at(clock::NO_TICK, Verdict::Fresh), (true, true));
    }
    assert_eq!(
        requests.at(clock::NO_TICK, Verdict::Unusable),
        (false, true)
    );
}

#[test]
fn ticks_say_nothing_of_a_clock_that_does_not_run_with_the_systems() {
    let now = TokioClock.now();
    for now in [now - LIFE, now + LIFE] {
        let clock = Stopped(now);
        let token = cached("a", 1);
        let requests = Requests::new(&token, &clock);
        for _ in 0..3 {
            assert_eq!(requests.at(1, Verdict::Fresh), (true, true));
        }
        assert_eq!(requests.at(1, Verdict::Unusable), (false, true));
    }
}

#[test]
fn each_thread_looks_for_itself() {
    let token = cached("a", 1);
    assert_eq!(
        Requests::new(&token, &TokioClock).at(1, Verdict::Fresh),
        (true, true)
    );
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let requests = Requests::new(&token, &TokioClock);
            let first = requests.at(1, Verdict::Fresh);
            (first, requests.at(1, Verdict::Unusable))
        });
        assert_eq!(other.join().unwrap(), ((true, true), (true, false)));
    });
}

/// The header that a request of this reader carries at this tick.
fn carried(reader: &mut SlotReader, slot: &Slot, tick: u64) -> String {
    let value = |token: &CachedToken| {
        let header = token.header_at(tick, &TokioClock, || Verdict::Fresh);
        header.unwrap().value.to_str().unwrap().to_owned()
    };
    if let Some(token) = reader.current(slot) {
        return value(token);
    }
    match reader.update(slot) {
        Some(token) => value(token),
        None => value(slot.load().as_deref().unwrap()),
    }
}

#[test]
fn a_replaced_token_is_not_carried_again_within_the_tick() {
    let slot = Slot::default();
    slot.publish(cached("a", 1));
    let mut reader = SlotReader::default();
    for _ in 0..3 {
        assert_eq!(carried(&mut reader, &slot, 1), "Bearer a");
    }
    assert!(reader.current(&slot).is_some(), "kept");
    slot.publish(cached("b", 2));
    assert!(reader.current(&slot).is_none());
    for _ in 0..3 {
        assert_eq!(carried(&mut reader, &slot, 1), "Bearer b");
    }
}

#[test]
fn a_clone_of_a_reader_starts_empty() {
    let slot = Slot::default();
    slot.publish(cached("a", 1));
    let mut reader = SlotReader::default();
    carried(&mut reader, &slot, 1);
    carried(&mut reader, &slot, 1);
    assert!(reader.current(&slot).is_some());
    assert!(reader.clone().current(&slot).is_none());
}

#[tokio::test]
async fn a_rejected_token_whose_replacement_is_not_due_is_believed_for_a_tick_too() {
    let count = AtomicU64::new(0);
    let cache = TokenCache::new(provider_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(AccessToken::bearer(format!("t-{number}"), LIFE))
    }));
    // The first is replaced at once, the second after a minute.
    for generation in 1..=2 {
        cache.token().await.unwrap();
        assert!(cache.reject_generation(generation, false));
        while cache.status().generation == 1 {
            tokio::task::yield_now().await;
        }
    }
    assert!(cache.status().rejected);
    let token = cache.state.slot.get().unwrap();
    let header = token.header_at(1, &TokioClock, || cache.look(&token));
    assert!(header.is_some());
    let header = token.header_at(1, &TokioClock, || panic!("looks again"));
    assert!(header.is_some());
}

#[test]
fn threads_in_a_row_share_no_shard() {
    let token = cached("a", 1);
    let shards = token.make_shards();
    assert!(shards.len() >= 2);
    // The numbers of threads go on for ever.
    for first in [0, shards.len(), 99 * shards.len() + 1] {
        let threads = first..first + shards.len();
        let used = threads.map(|thread| std::ptr::from_ref(nth(shards, thread).unwrap()));
        assert_eq!(used.collect::<HashSet<_>>().len(), shards.len());
    }
}

#[test]
fn a_token_has_shards_from_the_start_if_the_one_before_it_needed_them() {
    let slot = Slot::default();
    for (threads, shards) in [(1, false), (2, false), (1, true)] {
        slot.publish(cached("a", 1));
        let token = slot.get().unwrap();
        assert_eq!(token.shards.get().is_some(), shards, "{threads}");
        thread::scope(|scope| {
            for _ in 0..threads {
                scope
                    .spawn(|| token.shard().fresh_at.load(Ordering::Relaxed))
                    .join()
                    .unwrap();
            }
        });
    }
}

#[test]
fn a_reader_keeps_a_token_from_the_second_request_on() {
    let slot = Slot::default();
    slot.publish(cached("a", 1));
    let mut reader = SlotReader::default();
    assert!(reader.update(&slot).is_none());
    assert!(reader.update(&slot).is_some());
}
