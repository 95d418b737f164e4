//! Failures: what a cache remembers of them, and what the rate limit lets through.

use std::pin::pin;

use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{Error, ErrorKind, Phase, RateLimit};

use crate::support::{Stopwatch, at_once, cache_with, ms, now, poll, s, served, settle, stepped};

fn failing(times: usize, error: &Error) -> ScriptedProvider {
    let provider = ScriptedProvider::new();
    for _ in 0..times {
        provider.push(Step::Error(error.clone()));
    }
    provider
}

#[tokio::test]
async fn in_the_hold_callers_fail_at_once_with_the_remembered_error() {
    let down = Error::new(ErrorKind::Transport, "down").with_retry_after(s(20));
    let provider = failing(1, &down);
    let (cache, clock) = stepped(&provider);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    for second in 0..20 {
        let error = at_once(cache.token()).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport);
        assert_eq!(error.retry_after(), Some(s(20 - second)));
        assert!(error.to_string().starts_with("down"));
        let error = at_once(cache.refresh()).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport);
        clock.advance(s(1));
    }
    assert_eq!(provider.calls(), 1);
    assert_eq!(served(&cache.token().await), "Bearer scripted-2");
}

#[tokio::test]
async fn a_retry_after_is_clamped_between_a_second_and_an_hour() {
    for (said, meant) in [(s(0), s(1)), (ms(1), s(1)), (s(90_000), s(3600))] {
        let error = Error::new(ErrorKind::RateLimited, "busy").with_retry_after(said);
        let provider = failing(1, &error);
        let (cache, clock) = stepped(&provider);
        cache.token().await.unwrap_err();
        assert_eq!(cache.status().next_attempt_in, Some(meant));
        clock.advance(meant - ms(1));
        assert!(cache.token().await.is_err());
        assert_eq!(provider.calls(), 1);
        clock.advance(ms(1));
        assert!(cache.token().await.is_ok());
    }
}

#[tokio::test]
async fn transient_failures_back_off_for_a_second_then_for_2_to_30_s() {
    let down = Error::new(ErrorKind::Transport, "down");
    // The first fetch sends twice.
    let provider = failing(8, &down);
    let (cache, clock) = stepped(&provider);
    for (failures, most) in [1, 4, 8, 16, 30, 30, 30].into_iter().enumerate() {
        assert!(at_once(cache.token()).is_none());
        settle().await;
        if failures == 0 {
            clock.advance(s(1));
            settle().await;
        }
        assert_eq!(provider.calls(), failures + 2);
        let hold = cache.status().next_attempt_in.unwrap();
        let least = if failures == 0 { s(1) } else { s(most) / 2 };
        assert!((least..=s(most)).contains(&hold), "{failures}: {hold:?}");
        clock.advance(hold);
    }
    assert_eq!(served(&cache.token().await), "Bearer scripted-9");
}

#[tokio::test]
async fn lasting_failures_hold_for_one_minute_up_to_ten_and_heal_by_themselves() {
    use ErrorKind::{Denied, InvalidClient, InvalidScope};
    for kind in [InvalidClient, InvalidScope, Denied] {
        let provider = failing(6, &Error::new(kind, "no"));
        let (cache, clock) = stepped(&provider);
        for (failures, minutes) in [1, 2, 4, 8, 10, 10].into_iter().enumerate() {
            assert_eq!(cache.token().await.unwrap_err().kind(), kind);
            assert_eq!(provider.calls(), failures + 1);
            assert_eq!(cache.status().phase, Phase::Failing);
            clock.advance(s(60 * minutes) - ms(1));
            let error = at_once(cache.token()).unwrap().unwrap_err();
            assert_eq!((error.kind(), error.retry_after()), (kind, Some(ms(1))));
            clock.advance(ms(1));
        }
        assert_eq!(served(&cache.token().await), "Bearer scripted-7");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_fails_at_once_when_a_place_frees_too_late() {
    let rate_limit = RateLimit::new(1, s(60));
    let provider = ScriptedProvider::new();
    let make = || cache_with(&provider, |builder| builder.rate_limit(rate_limit.clone()));
    let (one, other) = (make(), make());
    one.token().await.unwrap();
    let watch = Stopwatch::start();
    for _ in 0..10 {
        let error = other.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert_eq!(error.retry_after(), Some(s(60)));
    }
    assert_eq!(watch.elapsed(), s(0));
    assert_eq!(provider.calls(), 1);
    assert_eq!(other.status().token_requests, 0);
    assert_eq!(other.status().consecutive_failures, 0);
    // The endpoint refused nothing, so nothing is held against it.
    tokio::time::advance(s(31)).await;
    assert!(other.token().await.is_ok());
    assert_eq!(watch.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn a_refresh_ahead_that_somebody_begins_to_wait_for_goes_before_the_others() {
    let clock = ManualClock::new();
    let rate_limit = RateLimit::new(1, s(4));
    let make = |provider: &ScriptedProvider| {
        cache_with(provider, |builder| {
            builder.clock(clock.clone()).rate_limit(rate_limit.clone())
        })
    };
    let (one, other) = (ScriptedProvider::new(), ScriptedProvider::new());
    let (first, second) = (make(&one), make(&other));
    first.token().await.unwrap();
    clock.advance(s(4));
    second.token().await.unwrap();
    clock.advance(s(3580));
    let third = make(&ScriptedProvider::new());
    third.token().await.unwrap();
    // In the background, the first before the second.
    assert!(first.try_token().is_some());
    settle().await;
    assert!(second.try_token().is_some());
    settle().await;
    // It cannot wait for the window: a manual refresh of the second does.
    let mut refresh = pin!(second.refresh());
    assert!(poll(refresh.as_mut()).is_pending());
    settle().await;
    clock.advance(s(4));
    settle().await;
    assert_eq!((one.calls(), other.calls()), (1, 2));
    assert!(refresh.await.is_ok());
}

#[tokio::test]
async fn a_used_up_rate_limit_leaves_the_old_token_in_use_and_is_not_a_failure() {
    let clock = ManualClock::new();
    let provider = ScriptedProvider::new();
    let cache = cache_with(&provider, |builder| {
        let rate_limit = RateLimit::new(1, s(3400));
        builder.clock(clock.clone()).rate_limit(rate_limit)
    });
    cache.token().await.unwrap();
    clock.advance(s(3300));
    for _ in 0..99 {
        assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-1"));
        settle().await;
        assert_eq!(cache.status().last_error, None);
        clock.advance(s(1));
    }
    clock.advance(s(1));
    assert!(cache.try_token().is_some());
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-2"));
}

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
