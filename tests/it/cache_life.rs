//! A token's life, from cold to dead, on both clocks.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use officernd_auth::provider::Cause;
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{ErrorKind, Phase, RateLimit, TokenCache};

use crate::support::{at_once, cache_with, ms, now, poll, s, served, settle, stepped};

const FIRST: &str = "Bearer scripted-1";
const SECOND: &str = "Bearer scripted-2";

#[tokio::test]
async fn a_token_is_fetched_for_the_first_request_and_again_only_for_a_request_after_its_refresh_time()
 {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    assert_eq!(now(&cache), None);
    settle().await;
    assert_eq!(provider.calls(), 0, "to look is not to ask");
    assert_eq!(served(&cache.token().await), FIRST);
    clock.advance(ms(3_299_999));
    for _ in 0..100 {
        assert_eq!(now(&cache).as_deref(), Some(FIRST));
    }
    for _ in 0..48 {
        settle().await;
        clock.advance(s(1800));
    }
    assert_eq!(provider.calls(), 1, "no request, no fetch");
    assert_eq!(served(&cache.token().await), SECOND);
}

#[tokio::test]
async fn ahead_of_the_expiry_one_refresh_runs_in_the_background_and_nobody_waits() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    provider.set_latency(s(5));
    clock.advance(s(3300));
    for _ in 0..100 {
        assert_eq!(now(&cache).as_deref(), Some(FIRST));
        assert_eq!(served(&at_once(cache.token()).unwrap()), FIRST);
        settle().await;
    }
    assert_eq!(provider.calls(), 2);
    clock.advance(s(5));
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some(SECOND));
    assert_eq!(provider.causes(), [Cause::Cold, Cause::Ahead]);
    assert_eq!(provider.most_at_once(), 1);
}

#[tokio::test]
async fn within_the_margin_requests_wait_for_the_new_token() {
    for age in [s(3590), ms(3_599_999), s(3600)] {
        let provider = ScriptedProvider::new();
        let (cache, clock) = stepped(&provider);
        cache.token().await.unwrap();
        provider.set_latency(s(2));
        clock.advance(age);
        assert_eq!(now(&cache), None, "{age:?}");
        let mut one = pin!(cache.token());
        let mut other = pin!(cache.token());
        assert!(poll(one.as_mut()).is_pending());
        assert!(poll(other.as_mut()).is_pending());
        settle().await;
        clock.advance(s(2));
        assert_eq!(served(&one.await), SECOND);
        assert_eq!(served(&other.await), SECOND);
        assert_eq!(provider.causes(), [Cause::Cold, Cause::Expired]);
    }
}

#[tokio::test]
async fn while_refreshes_fail_the_old_token_serves_up_to_its_margin() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    for _ in 0..1000 {
        provider.push(Step::Fail(ErrorKind::Transport));
    }
    clock.advance(s(3300));
    for _ in 0..289 {
        assert_eq!(served(&cache.token().await), FIRST);
        settle().await;
        clock.advance(s(1));
    }
    clock.advance(ms(999));
    assert_eq!(served(&cache.token().await), FIRST);
    clock.advance(ms(1));
    assert_eq!(now(&cache), None, "dead");
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(provider.calls() > 5);
    assert_eq!(provider.most_at_once(), 1);
}

#[tokio::test]
async fn jitter_brings_the_refresh_forward_by_a_tenth_at_most_and_never_delays_it() {
    let clock = ManualClock::new();
    let make = |_| {
        cache_with(&ScriptedProvider::new(), |builder| {
            let builder = builder.refresh_ahead(s(900)).jitter(0.1);
            builder.clock(clock.clone())
        })
    };
    let caches: Vec<TokenCache> = (0..200).map(make).collect();
    for cache in &caches {
        cache.token().await.unwrap();
    }
    let aging = || {
        let due = |cache: &&TokenCache| cache.status().phase == Phase::RefreshDue;
        caches.iter().filter(due).count()
    };
    clock.advance(s(2429));
    assert_eq!(aging(), 0, "not before 40:30");
    clock.advance(s(136));
    assert!((20..180).contains(&aging()), "spread out: {}", aging());
    clock.advance(s(136));
    assert_eq!(aging(), 200, "all by 45:00");
}

#[tokio::test]
async fn no_life_is_so_short_that_the_rate_limit_is_exceeded() {
    for life in [Duration::from_nanos(1), ms(1), ms(100), s(1), s(3)] {
        let clock = ManualClock::new();
        let provider = ScriptedProvider::new().life(life);
        let cache = cache_with(&provider, |builder| {
            let builder = builder.rate_limit(RateLimit::default());
            builder.clock(clock.clone()).acquire_timeout(s(1))
        });
        for _ in 0..590 {
            if let Some(Err(error)) = at_once(cache.token()) {
                assert_eq!(error.kind(), ErrorKind::RateLimited);
            }
            settle().await;
            clock.advance(ms(100));
        }
        assert!(provider.calls() <= 5, "{life:?}: {}", provider.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_arrives_dead_is_not_served() {
    for (life, latency) in [(s(0), s(0)), (s(5), s(6))] {
        let provider = ScriptedProvider::new().life(life).latency(latency);
        let cache = cache_with(&provider, |builder| builder);
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert_eq!(now(&cache), None);
    }
}

#[tokio::test]
async fn a_suspend_ages_the_token_by_as_much() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    clock.advance(s(1000));
    clock.advance_wall(s(2300));
    assert_eq!(cache.status().phase, Phase::RefreshDue);
    assert_eq!(cache.status().expires_in, Some(s(300)));
    clock.advance_wall(s(290));
    assert_eq!(now(&cache), None);
    assert_eq!(served(&cache.token().await), SECOND);
    assert_eq!(cache.status().expires_in, Some(s(3600)));
}

#[tokio::test]
async fn a_wall_clock_set_back_neither_prolongs_nor_ends_a_life() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    clock.rewind_wall(s(100_000));
    assert_eq!(now(&cache).as_deref(), Some(FIRST));
    clock.advance(s(3299));
    assert_eq!(cache.status().phase, Phase::Fresh);
    clock.advance(s(301));
    assert_eq!(now(&cache), None);
}

#[tokio::test]
async fn a_caller_that_waits_while_the_machine_is_suspended_gets_no_token_that_died_meanwhile() {
    for step in [Step::Fail(ErrorKind::Transport), Step::Hang] {
        let provider = ScriptedProvider::new();
        let (cache, clock) = stepped(&provider);
        cache.token().await.unwrap();
        provider.set_latency(s(2));
        provider.push(step);
        clock.advance(s(3592));
        let mut caller = pin!(cache.token());
        assert!(poll(caller.as_mut()).is_pending());
        settle().await;
        clock.advance_wall(s(3600));
        let mut answer = Poll::Pending;
        for _ in 0..40 {
            clock.advance(s(1));
            settle().await;
            answer = poll(caller.as_mut());
            if answer.is_ready() {
                break;
            }
        }
        match answer {
            Poll::Ready(Ok(token)) => assert_ne!(token.header_value(), FIRST, "dead for an hour"),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => panic!("waits beyond the acquire timeout"),
        }
    }
}

#[tokio::test]
async fn a_token_that_dies_before_its_caller_looks_is_fetched_once_more_and_then_is_an_error() {
    for suspends in [1, 2] {
        let provider = ScriptedProvider::new();
        let (cache, clock) = stepped(&provider);
        let mut caller = pin!(cache.token());
        for _ in 0..suspends {
            assert!(poll(caller.as_mut()).is_pending());
            settle().await;
            clock.advance_wall(s(7200));
        }
        match caller.await {
            Err(error) if suspends == 2 => assert_eq!(error.kind(), ErrorKind::Timeout),
            result => assert_eq!(served(&result), SECOND),
        }
        assert_eq!(provider.calls(), 2);
    }
}

#[tokio::test]
async fn the_same_token_again_is_not_asked_for_until_it_is_dead() {
    let same = |left| Step::Token("same".into(), s(left));
    let provider = ScriptedProvider::new().then(same(3600)).then(same(300));
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    clock.advance(s(3300));
    for _ in 0..300 {
        assert_eq!(served(&cache.token().await), "Bearer same");
        settle().await;
        clock.advance(s(1));
    }
    assert_eq!(provider.calls(), 2, "a second request would bring the same");
    assert_eq!(served(&cache.token().await), "Bearer scripted-3");
}
