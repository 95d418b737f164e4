//! Runtimes that die, stand still, lack timers, or are none.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;

use officernd_auth::provider::Cause;
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, Builder as LayerBuilder, Error, ErrorKind, FetchContext, Phase, RateLimit,
    TokenCache, TokenProvider,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::support::{GENEROUS, at_once, cache_with, now, poll, s, served, settle, stepped};

const FIRST: &str = "Bearer scripted-1";
const SECOND: &str = "Bearer scripted-2";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn callers_on_another_runtime_are_served_when_the_one_with_the_fetch_dies() {
    let provider = ScriptedProvider::new().then(Step::Hang);
    let cache = cache_with(&provider, |builder| builder.fetch_timeout(s(600)));
    let (carrier, other) = (runtime(), runtime());
    // One caller moves, and one is parked on the other runtime: only its waker brings it back.
    let mut moves = pin!(cache.token());
    carrier.block_on(async {
        assert!(poll(moves.as_mut()).is_pending());
        settle().await;
    });
    let parked = cache.clone();
    let parked = other.spawn(async move { parked.token().await });
    other.block_on(settle());
    assert_eq!(provider.calls(), 1);
    drop(carrier);
    let parked = other.block_on(async { timeout(GENEROUS, parked).await });
    let result = parked.expect("the caller is woken").unwrap();
    assert_eq!(served(&result), SECOND);
    assert_eq!(served(&other.block_on(moves)), SECOND);
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

/// Ends some time after the provider that it wraps, and counts its ends.
#[derive(Clone)]
struct Stored<P>(P, Arc<AtomicUsize>);

impl<P: TokenProvider> TokenProvider for Stored<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let permit = cx.reserve().await?;
        let result = cx.fetch_from(&self.0, permit).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        result
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.0.rate_limit()
    }
}

#[test]
fn a_fetch_parked_with_its_runtime_is_given_up_soon_after_its_timeout_and_keeps_no_place() {
    let narrow = RateLimit::new(1, s(5));
    for (rate_limit, passed, at_most, wrapped) in [
        (RateLimit::unlimited(), 0, 16, false),
        (RateLimit::unlimited(), 0, 16, true),
        (narrow.clone(), 60, 30, false),
        (narrow, 60, 30, true),
    ] {
        let provider = ScriptedProvider::new().then(Step::Hang);
        let clock = ManualClock::new();
        let set = |builder: LayerBuilder| builder.clock(clock.clone()).rate_limit(rate_limit);
        let cache = match wrapped {
            true => cache_with(&Stored(provider.clone(), Arc::default()), set),
            false => cache_with(&provider, set),
        };
        let parked = runtime();
        parked.block_on(async {
            assert!(at_once(cache.token()).is_none());
            settle().await;
        });
        assert_eq!(provider.calls(), 1);
        clock.advance(s(passed));
        let (took, token) = runtime().block_on(seconds_until_served(&cache, &clock));
        assert_eq!(token, SECOND);
        assert!(
            took <= at_most,
            "{took} s for a fetch timeout of 10 s, wrapped: {wrapped}"
        );
        drop(parked);
        assert_eq!(now(&cache).as_deref(), Some(SECOND));
    }
}

#[test]
fn a_wrapper_whose_fetch_was_given_up_ends_when_its_runtime_wakes() {
    // The wrapper stores the failure and releases its lease.
    let provider = Stored(ScriptedProvider::new().then(Step::Hang), Arc::default());
    let clock = ManualClock::new();
    let cache = cache_with(&provider, |builder| builder.clock(clock.clone()));
    let parked = runtime();
    parked.block_on(async {
        assert!(at_once(cache.token()).is_none());
        settle().await;
    });
    let (_, token) = runtime().block_on(seconds_until_served(&cache, &clock));
    assert_eq!(token, SECOND);
    assert_eq!(provider.1.load(Ordering::SeqCst), 1);
    parked.block_on(settle());
    assert_eq!(provider.1.load(Ordering::SeqCst), 2);
    assert_eq!(now(&cache).as_deref(), Some(SECOND));
}

#[test]
fn a_fetch_that_was_given_up_before_it_began_does_not_call_its_provider_when_its_runtime_wakes() {
    /// Counts before it asks for a permit.
    #[derive(Clone)]
    struct Counted(ScriptedProvider, Arc<AtomicUsize>);

    impl TokenProvider for Counted {
        async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.fetch(cx).await
        }

        fn rate_limit(&self) -> Option<RateLimit> {
            None
        }
    }

    let clock = ManualClock::new();
    let provider = Counted(ScriptedProvider::new().latency(s(5)), Arc::default());
    let cache = cache_with(&provider, |builder| builder.clock(clock.clone()));
    let (parked, other) = (runtime(), runtime());
    parked.block_on(async { assert!(at_once(cache.token()).is_none()) });
    // The grace is a second.
    clock.advance(s(1));
    let caller = cache.clone();
    let caller = other.spawn(async move { caller.token().await });
    other.block_on(settle());
    parked.block_on(settle());
    clock.advance(s(5));
    assert_eq!(served(&other.block_on(caller).unwrap()), FIRST);
    parked.block_on(settle());
    assert_eq!(provider.1.load(Ordering::SeqCst), 1);
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
fn a_foreign_executor_gets_an_error_and_no_panic_also_when_it_joins_a_fetch() {
    for cache in [
        TokenCache::new(ScriptedProvider::new()),
        stepped(&ScriptedProvider::new()).0,
    ] {
        let error = at_once(cache.token()).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(!error.is_transient());
        assert_eq!(cache.status().phase, Phase::Cold, "nothing is held for it");
        let runtime = runtime();
        runtime.block_on(async { assert!(at_once(cache.token()).is_none()) });
        // tokio's timers panic outside a runtime.
        if let Some(result) = at_once(cache.token()) {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Runtime);
        }
        assert!(runtime.block_on(cache.token()).is_ok());
    }
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
fn a_refresh_that_stands_still_with_another_runtime_is_noticed_by_requests_and_by_keep_warm() {
    for keep_warm in [false, true] {
        let provider = ScriptedProvider::new();
        let clock = ManualClock::new();
        let (whole, parked) = (runtime(), runtime());
        let cache = whole.block_on(async {
            let cache = cache_with(&provider, |builder| {
                builder.clock(clock.clone()).keep_warm(keep_warm)
            });
            cache.token().await.unwrap();
            settle().await;
            cache
        });
        clock.advance(s(3300));
        // Its runtime never runs the refresh that this request starts.
        parked.block_on(async { assert!(cache.try_token().is_some()) });
        assert_eq!(cache.status().phase, Phase::Refreshing);
        whole.block_on(async {
            for _ in 0..75 {
                clock.advance(s(1));
                assert!(keep_warm || cache.try_token().is_some());
                settle().await;
            }
        });
        assert_eq!((provider.calls(), cache.status().generation), (2, 2));
        drop(parked);
    }
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
