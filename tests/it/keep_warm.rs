//! `keep_warm`, a timer for services that idle, and `warm_up`, which starts it.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use officernd_auth::clock::{Clock, Sleep};
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{AccessToken, ErrorKind, OfficeRndAuthLayer, RateLimit, provider_fn};

use crate::support::{Stopwatch, cache_with, s, settle};

#[tokio::test(start_paused = true)]
async fn keep_warm_starts_by_itself_gets_over_failures_and_refreshes_while_no_requests_come() {
    let provider = ScriptedProvider::new();
    for _ in 0..3 {
        provider.push(Step::Fail(ErrorKind::Transport));
    }
    provider.push(Step::Fail(ErrorKind::InvalidClient));
    let cache = cache_with(&provider, |builder| builder.keep_warm(true));
    tokio::time::sleep(s(700)).await;
    assert_eq!(provider.calls(), 5);
    for _ in 0..24 * 60 {
        assert!(cache.status().has_token());
        assert!(cache.status().expires_in > Some(s(200)));
        tokio::time::sleep(s(60)).await;
    }
    let calls = provider.calls() - 5;
    assert!((25..=28).contains(&calls), "one each 55 min: {calls}");
}

#[tokio::test(start_paused = true)]
async fn keep_warm_waits_out_the_rate_limit() {
    let provider = ScriptedProvider::new().life(s(10));
    let cache = cache_with(&provider, |builder| {
        builder
            .keep_warm(true)
            .rate_limit(RateLimit::new(1, s(300)))
    });
    tokio::time::sleep(s(899)).await;
    assert_eq!(provider.calls(), 3);
    drop(cache);
}

#[tokio::test(start_paused = true)]
async fn keep_warm_ends_with_the_last_handle() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let provider = provider_fn(move || {
        let _held = &held;
        ready(AccessToken::bearer("t", s(3600)))
    });
    let builder = OfficeRndAuthLayer::builder(provider).keep_warm(true);
    let layer = builder.build().unwrap();
    let other = layer.cache().clone();
    settle().await;
    drop(layer);
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(
        metrics.num_alive_tasks(),
        1,
        "the timer, while there is a handle"
    );
    drop(other);
    settle().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn keep_warm_of_a_cache_made_outside_a_runtime_starts_inside_the_first() {
    let provider = ScriptedProvider::new();
    let cache = cache_with(&provider, |builder| builder.keep_warm(true));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        cache.token().await.unwrap();
        tokio::time::sleep(s(3400)).await;
        assert_eq!(provider.calls(), 2);
    });
}

#[tokio::test]
async fn keep_warm_does_not_spin_while_rejections_are_damped() {
    let reads = Arc::new(AtomicUsize::new(0));
    let clock = ManualClock::new();
    let provider = ScriptedProvider::new().life(s(600));
    let counting = Counting {
        clock: clock.clone(),
        reads: Arc::clone(&reads),
    };
    let cache = cache_with(&provider, |builder| builder.keep_warm(true).clock(counting));
    settle().await;
    // Held back for 0, 60, 120, 240 and 480 s; refreshed ahead from 300 s.
    for hold in [0, 60, 120, 240] {
        assert!(cache.reject(&cache.token().await.unwrap()));
        settle().await;
        clock.advance(s(hold));
        settle().await;
    }
    assert_eq!(provider.calls(), 5);
    assert!(cache.reject(&cache.token().await.unwrap()));
    clock.advance(s(301));
    reads.store(0, Ordering::SeqCst);
    settle().await;
    let reads = reads.load(Ordering::SeqCst);
    assert!(
        reads < 1000,
        "the clock was read {reads} times at one moment"
    );
    // Refreshed ahead of its expiry all the same.
    assert_eq!(provider.calls(), 6);
}

/// Counts how often it is read, and breaks a loop that reads it for ever.
#[derive(Debug)]
struct Counting {
    clock: ManualClock,
    reads: Arc<AtomicUsize>,
}

impl Clock for Counting {
    fn now(&self) -> Instant {
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(reads < 100_000, "a task spins");
        self.clock.now()
    }

    fn wall(&self) -> SystemTime {
        self.clock.wall()
    }

    fn sleep_until(&self, until: Instant) -> Sleep {
        self.clock.sleep_until(until)
    }
}

#[tokio::test(start_paused = true)]
async fn warm_up_goes_on_through_failures_and_keeps_the_cache_warm() {
    let provider = ScriptedProvider::new();
    for _ in 0..3 {
        provider.push(Step::Fail(ErrorKind::Transport));
    }
    let cache = cache_with(&provider, |builder| builder);
    cache.warm_up().await.unwrap();
    assert_eq!(provider.calls(), 4);
    for _ in 0..300 {
        tokio::time::sleep(s(60)).await;
        assert!(cache.status().has_token(), "ready without a request");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_could_not_warm_up_becomes_ready_without_a_request() {
    let provider = ScriptedProvider::new();
    provider.push(Step::Fail(ErrorKind::InvalidClient));
    let cache = cache_with(&provider, |builder| builder);
    let watch = Stopwatch::start();
    let error = cache.warm_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidClient);
    assert!(watch.elapsed() >= s(30));
    tokio::time::sleep(s(60)).await;
    assert!(cache.status().has_token());
}
