//! One fetch at a time, also when callers leave and providers hang or panic.

use std::pin::pin;
use std::time::Duration;

use officernd_auth::provider::Cause;
use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{Error, ErrorKind, Phase};

use crate::support::{
    GENEROUS, Stopwatch, at_once, cache_with, ms, now, poll, s, served, settle, stepped,
};

const FIRST: &str = "Bearer scripted-1";
const SECOND: &str = "Bearer scripted-2";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_callers_do_at_once_there_is_one_fetch_at_a_time() {
    let provider = ScriptedProvider::new().latency(Duration::from_micros(300));
    for n in 0..200 {
        provider.push(match n % 5 {
            0 => Step::Token(format!("t{n}").into(), ms(3)),
            1 => Step::Panic,
            2 => Step::Error(Error::new(ErrorKind::Transport, "down")),
            _ => Step::Token(format!("t{n}").into(), s(3600)),
        });
    }
    let cache = cache_with(&provider, |builder| builder);
    let callers: Vec<_> = (0..64)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for round in 0..50 {
                    match (n + round) % 4 {
                        0 => drop(cache.refresh().await),
                        1 => {
                            if let Some(token) = cache.try_token() {
                                cache.reject(&token);
                            }
                        }
                        2 => drop(at_once(cache.token())),
                        _ => drop(cache.token().await),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(GENEROUS, caller)
            .await
            .expect("every caller gets an answer")
            .unwrap();
    }
    assert_eq!(provider.most_at_once(), 1);
    let calls = u64::try_from(provider.calls()).unwrap();
    assert_eq!(cache.status().token_requests, calls);
}

#[tokio::test]
async fn callers_who_leave_do_not_take_the_fetch_with_them() {
    let provider = ScriptedProvider::new().latency(s(3));
    let (cache, clock) = stepped(&provider);
    for _ in 0..100 {
        assert!(at_once(cache.token()).is_none());
    }
    settle().await;
    clock.advance(s(3));
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some(FIRST));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_times_out_for_all_who_wait() {
    let provider = ScriptedProvider::new().then(Step::Hang).then(Step::Hang);
    let cache = cache_with(&provider, |builder| builder);
    let watch = Stopwatch::start();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    let took = watch.elapsed();
    // Ten seconds for each try, and a second at most between them.
    assert!(took >= s(20) && took < ms(21_200), "{took:?}");
    assert_eq!(provider.calls(), 2);
    tokio::time::advance(s(2)).await;
    assert_eq!(served(&cache.token().await), "Bearer scripted-3");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_the_acquire_timeout() {
    let provider = ScriptedProvider::new().latency(s(8));
    let cache = cache_with(&provider, |builder| builder.acquire_timeout(s(2)));
    let watch = Stopwatch::start();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let took = watch.elapsed();
    assert!(took >= s(2) && took < ms(2100), "{took:?}");
    // Its fetch went on.
    tokio::time::sleep(s(7)).await;
    assert_eq!(now(&cache).as_deref(), Some(FIRST));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_just_before_the_deadline_is_not_tried_again() {
    let provider = ScriptedProvider::new()
        .latency(ms(1_950))
        .then(Step::Fail(ErrorKind::Transport));
    let cache = cache_with(&provider, |builder| builder.acquire_timeout(s(2)));
    cache.token().await.unwrap_err();
    tokio::time::sleep(s(2)).await;
    assert_eq!(provider.calls(), 1);
    assert_eq!(cache.status().last_error, Some(ErrorKind::Transport));
}

#[tokio::test]
async fn a_manual_refresh_joins_the_fetch_under_way() {
    let provider = ScriptedProvider::new().latency(s(1));
    let (cache, clock) = stepped(&provider);
    let mut caller = pin!(cache.token());
    let mut refresh = pin!(cache.refresh());
    assert!(poll(caller.as_mut()).is_pending());
    assert!(poll(refresh.as_mut()).is_pending());
    settle().await;
    clock.advance(s(1));
    assert_eq!(served(&refresh.await), FIRST);
    assert_eq!(served(&caller.await), FIRST);
    provider.set_latency(s(0));
    assert_eq!(served(&cache.refresh().await), SECOND);
    assert_eq!(provider.causes(), [Cause::Cold, Cause::Manual]);
}

#[tokio::test]
async fn a_panic_of_the_provider_costs_its_callers_nothing_but_time() {
    let provider = ScriptedProvider::new().then(Step::Panic);
    let (cache, _clock) = stepped(&provider);
    assert_eq!(served(&cache.token().await), SECOND);
    let status = cache.status();
    assert_eq!((status.phase, status.last_error), (Phase::Fresh, None));
}

#[tokio::test]
async fn a_provider_that_always_panics_is_an_error_for_every_waiter_and_no_hold() {
    let provider = ScriptedProvider::new();
    for _ in 0..4 {
        provider.push(Step::Panic);
    }
    let (cache, _clock) = stepped(&provider);
    let mut callers: Vec<_> = (0..100).map(|_| Box::pin(cache.token())).collect();
    for caller in &mut callers {
        assert!(poll(caller.as_mut()).is_pending());
    }
    settle().await;
    for caller in callers {
        if let Err(error) = caller.await {
            assert_eq!(error.kind(), ErrorKind::Runtime);
        }
    }
    assert_eq!(served(&cache.token().await), "Bearer scripted-5");
    assert_eq!(provider.most_at_once(), 1);
}

#[tokio::test]
async fn a_panic_in_the_background_leaves_the_old_token_in_use_and_is_tried_again() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    provider.push(Step::Panic);
    clock.advance(s(3300));
    assert_eq!(now(&cache).as_deref(), Some(FIRST));
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some(FIRST));
    settle().await;
    assert_eq!(now(&cache).as_deref(), Some("Bearer scripted-3"));
}
