//! What the cache promises of failures, readiness and evidence.

use std::pin::pin;

use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{ErrorKind, RateLimit};

use crate::support::{Stopwatch, cache_with, now, poll, s, served, settle};

#[tokio::test(start_paused = true)]
async fn only_the_second_transient_failure_is_reported_with_the_time_of_the_next_try() {
    let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::Transport));
    let cache = cache_with(&provider, |builder| builder);
    let watch = Stopwatch::start();
    assert_eq!(served(&cache.token().await), "Bearer scripted-2");
    assert!(watch.elapsed() <= s(1));
    provider.push(Step::Fail(ErrorKind::Transport));
    provider.push(Step::Fail(ErrorKind::Transport));
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(error.retry_after().unwrap() <= s(2));
    assert_eq!(provider.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn refresh_never_returns_the_old_token() {
    let provider = ScriptedProvider::new();
    let cache = cache_with(&provider, |builder| {
        builder.rate_limit(RateLimit::new(1, s(25)))
    });
    cache.token().await.unwrap();
    provider.set_latency(s(9));
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-1"));
}

#[tokio::test]
async fn what_the_rate_limit_told_a_refresh_does_not_hold_back_a_waiting_request() {
    let clock = ManualClock::new();
    let rate_limit = RateLimit::new(1, s(25));
    let make = |provider: &ScriptedProvider| {
        let clock = clock.clone();
        cache_with(provider, |builder| {
            let builder = builder.clock(clock).rate_limit(rate_limit.clone());
            builder.refresh_ahead(s(10)).expiry_margin(s(0))
        })
    };
    let life = || ScriptedProvider::new().life(s(60));
    let (one, other, third) = (make(&life()), make(&life()), make(&life()));
    one.token().await.unwrap();
    clock.advance(s(25));
    other.token().await.unwrap();
    clock.advance(s(27));
    third.token().await.unwrap();
    // The refresh of one waits for a place; then its token expires.
    assert!(one.try_token().is_some());
    settle().await;
    clock.advance(s(9));
    assert!(one.try_token().is_none());
    let mut caller = pin!(one.token());
    assert!(
        poll(caller.as_mut()).is_pending(),
        "it waits for the window"
    );
    settle().await;
    clock.advance(s(17));
    settle().await;
    assert_eq!(served(&caller.await), "Bearer scripted-2");
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
