//! Runtimes that die, stand still, lack timers, or are none.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use officernd_auth::provider::Cause;
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, Phase, RateLimit, TokenCache,
    TokenProvider,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::support::{at_once, cache_with, now, poll, s, served, settle, stepped};

/// Ends a test that hangs; nothing is tuned to it.
const GENEROUS: Duration = Duration::from_secs(60);

const FIRST: &str = "Bearer scripted-1";
const SECOND: &str = "Bearer scripted-2";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn who_waits_on_another_runtime_is_served_when_the_one_with_the_fetch_dies() {
    let provider = ScriptedProvider::new().then(Step::Hang);
    let cache = cache_with(&provider, |builder| builder.fetch_timeout(s(600)));
    let (started, has_started) = mpsc::channel();
    let (die, death) = oneshot::channel::<()>();
    let carrier = thread::spawn({
        let cache = cache.clone();
        move || {
            runtime().block_on(async move {
                assert!(at_once(cache.token()).is_none());
                settle().await;
                started.send(()).unwrap();
                death.await.unwrap();
            });
        }
    });
    has_started.recv_timeout(GENEROUS).unwrap();
    let (waiting, waits) = mpsc::channel();
    let (served_with, result) = mpsc::channel();
    let waiter = thread::spawn({
        let cache = cache.clone();
        move || {
            let result = runtime().block_on(async {
                let mut caller = pin!(cache.token());
                let polled =
                    std::future::poll_fn(|cx| Poll::Ready(caller.as_mut().poll(cx).is_pending()));
                assert!(polled.await);
                waiting.send(()).unwrap();
                caller.await
            });
            served_with.send(result).unwrap();
        }
    });
    waits.recv_timeout(GENEROUS).unwrap();
    die.send(()).unwrap();
    let result = result.recv_timeout(GENEROUS).expect("the waiter is served");
    assert_eq!(served(&result), SECOND);
    carrier.join().unwrap();
    waiter.join().unwrap();
    assert_eq!(provider.most_at_once(), 1);
}

#[test]
fn runtimes_that_die_again_and_again_do_not_wear_a_cache_out() {
    let provider = ScriptedProvider::new();
    for _ in 0..20 {
        provider.push(Step::Hang);
    }
    let cache = cache_with(&provider, |builder| builder);
    for calls in 1..=20 {
        runtime().block_on(async {
            assert!(at_once(cache.token()).is_none());
            settle().await;
        });
        assert_eq!(provider.calls(), calls);
        assert_eq!(cache.status().phase, Phase::Cold);
    }
    assert_eq!(
        served(&runtime().block_on(cache.token())),
        "Bearer scripted-21"
    );
    assert_eq!(provider.most_at_once(), 1);
}

#[test]
fn a_caller_who_moves_to_another_runtime_is_served_there() {
    let provider = ScriptedProvider::new().then(Step::Hang);
    let cache = cache_with(&provider, |builder| builder);
    let mut caller = pin!(cache.token());
    let first = runtime();
    first.block_on(async {
        assert!(poll(caller.as_mut()).is_pending());
        settle().await;
    });
    let second = runtime();
    drop(first);
    assert_eq!(served(&second.block_on(caller)), SECOND);
}

/// Waits for a token while the clock goes on, second by second. How long.
async fn seconds_until_served(cache: &TokenCache, clock: &ManualClock) -> (u64, String) {
    let mut caller = pin!(cache.token());
    for second in 0..=60 {
        if let Poll::Ready(result) = poll(caller.as_mut()) {
            return (second, served(&result).to_owned());
        }
        settle().await;
        if let Poll::Ready(result) = poll(caller.as_mut()) {
            return (second, served(&result).to_owned());
        }
        clock.advance(s(1));
        settle().await;
    }
    panic!("waits for a minute and more");
}

#[test]
fn a_fetch_parked_with_its_runtime_is_given_up_soon_after_its_timeout() {
    let provider = ScriptedProvider::new().then(Step::Hang);
    let (cache, clock) = stepped(&provider);
    let parked = runtime();
    parked.block_on(async {
        assert!(at_once(cache.token()).is_none());
        settle().await;
    });
    assert_eq!(provider.calls(), 1);
    let (took, token) = runtime().block_on(seconds_until_served(&cache, &clock));
    assert_eq!(token, SECOND);
    assert!(took <= 16, "{took} s for a fetch timeout of 10 s");
    drop(parked);
    assert_eq!(now(&cache).as_deref(), Some(SECOND));
}

#[test]
fn a_fetch_that_was_given_up_before_it_began_sends_nothing_when_its_runtime_wakes() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    let parked = runtime();
    parked.block_on(async { assert!(at_once(cache.token()).is_none()) });
    clock.advance(s(40));
    let other = runtime();
    provider.set_latency(s(5));
    other.block_on(async {
        let mut caller = pin!(cache.token());
        for _ in 0..3 {
            assert!(poll(caller.as_mut()).is_pending());
            settle().await;
            clock.advance(s(1));
        }
        assert_eq!(provider.calls(), 1, "given up after the grace of a second");
        settle().await;
        assert!(poll(caller.as_mut()).is_pending());
    });
    parked.block_on(settle());
    assert_eq!(provider.most_at_once(), 1);
    clock.advance(s(5));
    assert_eq!(served(&other.block_on(cache.token())), FIRST);
    parked.block_on(settle());
    assert_eq!(provider.calls(), 1);
}

#[test]
fn a_fetch_that_was_given_up_before_it_began_does_not_call_its_provider() {
    /// Takes no permit.
    struct Counted(Arc<AtomicUsize>);

    impl TokenProvider for Counted {
        async fn fetch(&self, _cx: FetchContext) -> Result<AccessToken, Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            AccessToken::bearer("t", s(3600))
        }

        fn rate_limit(&self) -> Option<RateLimit> {
            None
        }
    }

    let (clock, calls) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let builder = OfficeRndAuthLayer::builder(Counted(Arc::clone(&calls))).clock(clock.clone());
    let cache = builder.build().unwrap().cache().clone();
    let parked = runtime();
    parked.block_on(async { assert!(at_once(cache.token()).is_none()) });
    clock.advance(s(1));
    assert!(runtime().block_on(cache.token()).is_ok());
    parked.block_on(settle());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_refresh_ahead_parked_with_its_runtime_makes_nobody_wait_either() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    let parked = runtime();
    parked.block_on(async {
        cache.token().await.unwrap();
        settle().await;
        clock.advance(s(3300));
        assert!(cache.try_token().is_some());
    });
    let other = runtime();
    other.block_on(async {
        for _ in 0..60 {
            clock.advance(s(1));
            assert!(cache.try_token().is_some());
            settle().await;
        }
    });
    assert_eq!(now(&cache).as_deref(), Some(SECOND));
    drop(parked);
}

#[test]
fn fetches_parked_with_their_runtimes_do_not_keep_their_places() {
    let provider = ScriptedProvider::new().then(Step::Hang);
    let clock = ManualClock::new();
    let cache = cache_with(&provider, |builder| {
        let rate_limit = RateLimit::new(1, s(5));
        builder.clock(clock.clone()).rate_limit(rate_limit)
    });
    let parked = runtime();
    parked.block_on(async {
        assert!(at_once(cache.token()).is_none());
        settle().await;
    });
    clock.advance(s(60));
    let (took, token) = runtime().block_on(seconds_until_served(&cache, &clock));
    assert_eq!(token, SECOND);
    assert!(took <= 30, "{took} s");
    drop(parked);
}

#[test]
fn outside_a_runtime_nothing_panics_and_the_work_starts_inside_the_next() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    assert!(cache.try_token().is_none());
    assert_eq!(cache.status().phase, Phase::Cold);
    let runtime = runtime();
    let token = runtime.block_on(cache.token()).unwrap();
    assert!(cache.reject(&token));
    assert!(!cache.reject(&token));
    assert!(cache.status().rejected);
    assert_eq!(now(&cache).as_deref(), Some(FIRST));
    assert_eq!(served(&at_once(cache.token()).unwrap()), FIRST);
    runtime.block_on(async {
        assert_eq!(now(&cache).as_deref(), Some(FIRST));
        settle().await;
        assert_eq!(now(&cache).as_deref(), Some(SECOND));
    });
    clock.advance(s(3300));
    assert_eq!(now(&cache).as_deref(), Some(SECOND));
    runtime.block_on(settle());
    assert_eq!(provider.calls(), 2);
    runtime.block_on(async {
        assert!(cache.try_token().is_some());
        settle().await;
    });
    assert_eq!(
        provider.causes(),
        [Cause::Cold, Cause::Rejected, Cause::Ahead]
    );
}

#[test]
fn a_foreign_executor_gets_an_error_and_no_panic() {
    for cache in [
        TokenCache::new(ScriptedProvider::new()),
        stepped(&ScriptedProvider::new()).0,
    ] {
        let error = at_once(cache.token()).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(!error.is_transient());
        assert_eq!(cache.status().phase, Phase::Cold, "nothing is held for it");
        assert!(runtime().block_on(cache.token()).is_ok());
    }
}

#[test]
fn a_foreign_executor_gets_the_token_up_to_its_margin() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    runtime().block_on(cache.token()).unwrap();
    clock.advance(s(3589));
    assert_eq!(served(&at_once(cache.token()).unwrap()), FIRST);
    clock.advance(s(1));
    let error = at_once(cache.token()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
}

#[test]
fn a_foreign_executor_that_joins_a_fetch_under_way_does_not_panic() {
    let provider = ScriptedProvider::new().then(Step::Hang);
    let cache = cache_with(&provider, |builder| builder);
    let runtime = runtime();
    runtime.block_on(async {
        assert!(at_once(cache.token()).is_none());
        settle().await;
    });
    // tokio's timers panic outside a runtime.
    if let Some(result) = at_once(cache.token()) {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Runtime);
    }
    drop(runtime);
}

#[test]
fn in_a_runtime_without_timers_tokio_panics_in_the_callers_task_and_the_cache_goes_on() {
    let cache = cache_with(&ScriptedProvider::new(), |builder| builder);
    let bare = Builder::new_current_thread().build().unwrap();
    let caller = cache.clone();
    let joined = bare.block_on(bare.spawn(async move { caller.token().await }));
    assert!(joined.unwrap_err().is_panic());
    assert_eq!(served(&runtime().block_on(cache.token())), FIRST);
    assert_eq!(served(&bare.block_on(cache.token())), FIRST);
}

#[test]
fn keep_warm_notices_a_fetch_that_stands_still_with_another_runtime() {
    let provider = ScriptedProvider::new();
    let clock = ManualClock::new();
    let (whole, parked) = (runtime(), runtime());
    let cache = whole.block_on(async {
        let cache = cache_with(&provider, |builder| {
            builder.clock(clock.clone()).keep_warm(true)
        });
        cache.token().await.unwrap();
        settle().await;
        cache
    });
    clock.advance(s(3300));
    // The last request: its runtime never runs the refresh that it starts.
    parked.block_on(async { assert!(cache.try_token().is_some()) });
    assert_eq!(cache.status().phase, Phase::Refreshing);
    whole.block_on(async {
        for _ in 0..75 {
            clock.advance(s(1));
            settle().await;
        }
    });
    assert_eq!((provider.calls(), cache.status().generation), (2, 2));
    drop(parked);
}

#[test]
fn a_call_from_a_runtime_that_shuts_down_neither_hangs_nor_panics() {
    /// Asks for a token when its task is dropped.
    struct Last(TokenCache, mpsc::Sender<bool>);

    impl Drop for Last {
        fn drop(&mut self) {
            let result = at_once(self.0.token());
            drop(self.0.try_token());
            // A panic would be lost in here.
            self.1.send(matches!(result, None | Some(Err(_)))).unwrap();
        }
    }

    let provider = ScriptedProvider::new();
    let cache = cache_with(&provider, |builder| builder);
    let (told, asked) = mpsc::channel();
    let dying = runtime();
    let last = Last(cache.clone(), told);
    dying.spawn(async move {
        let _last = last;
        std::future::pending::<()>().await;
    });
    dying.block_on(settle());
    drop(dying);
    assert!(asked.recv_timeout(GENEROUS).unwrap());
    assert_eq!(provider.calls(), 0);
    assert_eq!(served(&runtime().block_on(cache.token())), FIRST);
}
