//! The concurrent core under schedules that shuttle makes up: one after the
//! other for the smallest scene, thousands at random for the larger ones. A deadlock
//! or a lost wake-up fails the run; the failing schedule is printed and
//! reproduces.
//!
//! `RUSTFLAGS='--cfg shuttle' cargo test --no-default-features --features testing --test model`
#![cfg(shuttle)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use http::{Request, Response};
use officernd_auth::testing::ManualClock;
use officernd_auth::{
    AccessToken, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit, TokenCache,
    TokenProvider, kill_flights, settle_flights,
};
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use tower::{Layer, Service, service_fn};

/// A provider that lets others run before it answers.
#[derive(Clone, Default)]
struct Provider {
    calls: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    /// The first so many calls fail.
    fails: usize,
    steps: usize,
    hangs: bool,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl TokenProvider for Provider {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        let alone = self.running.fetch_add(1, Ordering::SeqCst) == 0;
        let _running = Running(self.running.clone());
        // A schedule may starve a hanging fetch for so long past its timeout that
        // it counts as gone with its runtime, and is replaced.
        assert!(alone || self.hangs, "two fetches at once");
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        for _ in 0..self.steps {
            yield_now().await;
        }
        if call <= self.fails {
            // A transient one would be tried again before anybody hears of it.
            return Err(Error::new(ErrorKind::Denied, "no"));
        }
        AccessToken::bearer(format!("token-{call}"), Duration::from_secs(3600))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

fn layer(provider: &Provider, clock: &ManualClock) -> OfficeRndAuthLayer {
    OfficeRndAuthLayer::builder(provider.clone())
        .clock(clock.clone())
        .rate_limit(RateLimit::unlimited())
        .jitter(0.0)
        .build()
        .unwrap()
}

fn cache(provider: &Provider) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    (layer(provider, &clock).cache().clone(), clock)
}

/// Asks for a token in so many tasks.
fn callers<T: Send + 'static>(
    count: usize,
    cache: &TokenCache,
    then: impl Fn(&TokenCache, Result<AccessToken, Error>) -> T + Clone + Send + Sync + 'static,
) -> Vec<JoinHandle<T>> {
    let caller = |_| {
        let (cache, then) = (cache.clone(), then.clone());
        spawn(async move { then(&cache, cache.token().await) })
    };
    (0..count).map(caller).collect()
}

fn request() -> Request<()> {
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    Request::get(url).body(()).unwrap()
}

fn ready(future: Pin<&mut impl Future>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    future.poll(&mut context).is_ready()
}

fn iterations(default: usize) -> usize {
    let given = std::env::var("SHUTTLE_ITERATIONS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// So many random schedules; more with SHUTTLE_ITERATIONS.
fn explore(scene: impl Fn() + Send + Sync + 'static) {
    let iterations = iterations(5_000);
    shuttle::check_random(
        move || {
            scene();
            settle_flights();
        },
        iterations,
    );
}

#[test]
fn callers_of_a_cold_cache_share_one_flight() {
    explore(|| {
        let provider = Provider {
            steps: 1,
            ..Provider::default()
        };
        let (cache, _clock) = cache(&provider);
        // The slot has the token before anybody is woken.
        let callers = callers(3, &cache, |cache, token| {
            let in_slot = cache.try_token().unwrap().generation();
            assert!(in_slot >= token.unwrap().generation());
        });
        for caller in callers {
            block_on(caller).unwrap();
        }
        assert_eq!(provider.calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn two_callers_get_the_token_in_schedule_after_schedule() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    shuttle::check_dfs(
        || {
            EXPLORED.fetch_add(1, Ordering::SeqCst);
            let provider = Provider::default();
            let (cache, _clock) = cache(&provider);
            let other = cache.clone();
            let caller = spawn(async move { other.token().await.unwrap().generation() });
            assert_eq!(block_on(cache.token()).unwrap().generation(), 1);
            assert_eq!(block_on(caller).unwrap(), 1);
            assert_eq!(provider.calls.load(Ordering::SeqCst), 1);
            settle_flights();
        },
        Some(iterations(20_000)),
    );
    println!("schedules explored: {EXPLORED:?}");
}

#[test]
fn a_caller_who_leaves_at_any_moment_harms_nobody() {
    explore(|| {
        let provider = Provider {
            steps: 2,
            ..Provider::default()
        };
        let (cache, _clock) = cache(&provider);
        let leavers: Vec<_> = (1..4)
            .map(|polls| {
                let cache = cache.clone();
                spawn(async move {
                    let mut token = Box::pin(cache.token());
                    for _ in 0..polls {
                        if ready(token.as_mut()) {
                            return;
                        }
                        yield_now().await;
                    }
                })
            })
            .collect();
        assert_eq!(block_on(cache.token()).unwrap().generation(), 1);
        for leaver in leavers {
            block_on(leaver).unwrap();
        }
        assert_eq!(provider.calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_flight_cut_down_at_any_moment_is_replaced_for_those_who_wait() {
    explore(|| {
        let provider = Provider {
            steps: 2,
            ..Provider::default()
        };
        let (cache, _clock) = cache(&provider);
        let callers = callers(2, &cache, |_, result| result);
        let killer = spawn(async {
            yield_now().await;
            kill_flights();
        });
        for caller in callers {
            assert!(block_on(caller).unwrap().is_ok());
        }
        block_on(killer).unwrap();
        assert!(provider.calls.load(Ordering::SeqCst) <= 2);
    });
}

#[test]
fn everybody_hears_of_a_failure_and_the_next_fetch_heals() {
    explore(|| {
        let provider = Provider {
            steps: 1,
            fails: 1,
            ..Provider::default()
        };
        let (cache, clock) = cache(&provider);
        let callers = callers(3, &cache, |_, result| result.unwrap_err().kind());
        for caller in callers {
            assert_eq!(block_on(caller).unwrap(), ErrorKind::Denied);
        }
        // A caller that came after the failure got it from the backoff.
        assert_eq!(provider.calls.load(Ordering::SeqCst), 1);
        clock.advance(Duration::from_secs(61));
        assert_eq!(block_on(cache.token()).unwrap().generation(), 1);
    });
}

#[test]
fn a_service_carries_the_new_token_on_its_first_request_after_the_refresh() {
    explore(|| {
        let provider = Provider::default();
        let layer = layer(&provider, &ManualClock::new());
        block_on(layer.cache().token()).unwrap();
        let mut service = layer.layer(service_fn(async |request: Request<()>| {
            let header = request.headers().get("authorization").cloned();
            Ok::<_, Infallible>(Response::new(header.unwrap()))
        }));
        let mut call = || block_on(service.call(request())).unwrap().into_body();
        let cache = layer.cache().clone();
        let refresher = spawn(async move { cache.refresh().await.unwrap().generation() });
        // The service begins to keep the token, old or new.
        for _ in 0..2 {
            call();
        }
        assert_eq!(block_on(refresher).unwrap(), 2);
        for _ in 0..3 {
            assert_eq!(call(), "Bearer token-2");
        }
    });
}

#[test]
fn a_service_that_races_with_a_refresh_never_goes_back_to_an_older_token() {
    explore(|| {
        let layer = layer(&Provider::default(), &ManualClock::new());
        block_on(layer.cache().token()).unwrap();
        let cache = layer.cache().clone();
        let refresher = spawn(async move { cache.refresh().await.unwrap().generation() });
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let mut service = layer.layer(service_fn(async |request: Request<()>| {
                    let header = request.headers()["authorization"].to_str().unwrap();
                    let number: u64 = header.rsplit('-').next().unwrap().parse().unwrap();
                    Ok::<_, Infallible>(Response::new(number))
                }));
                spawn(async move {
                    let mut newest = 0;
                    // The third request begins to use the token that it keeps.
                    for _ in 0..5 {
                        let number = service.call(request()).await.unwrap().into_body();
                        assert!(number >= newest, "token {number} after token {newest}");
                        newest = number;
                    }
                    (service, newest)
                })
            })
            .collect();
        assert_eq!(block_on(refresher).unwrap(), 2);
        for caller in callers {
            let (mut service, _) = block_on(caller).unwrap();
            for _ in 0..2 {
                assert_eq!(block_on(service.call(request())).unwrap().into_body(), 2);
            }
        }
    });
}

#[test]
fn a_rejection_hits_its_own_generation_whatever_lands_meanwhile() {
    explore(|| {
        let provider = Provider {
            steps: 1,
            ..Provider::default()
        };
        let (cache, _clock) = cache(&provider);
        let first = block_on(cache.token()).unwrap();
        let (one, two) = (cache.clone(), cache.clone());
        let rejected = first.clone();
        let refresher = spawn(async move { one.refresh().await.unwrap().generation() });
        let rejecter = spawn(async move {
            let news = two.reject(&rejected);
            // Nobody is ever left without a token.
            assert!(two.try_token().is_some());
            news
        });
        assert!(block_on(refresher).unwrap() >= 2);
        block_on(rejecter).unwrap();
        // Let a flight that the rejection started land.
        block_on(cache.refresh()).unwrap();
        assert!(!cache.status().rejected);
        assert!(!cache.reject(&first));
        assert!(provider.calls.load(Ordering::SeqCst) <= 4);
    });
}

#[test]
fn a_hanging_fetch_ends_for_all_when_its_time_is_up() {
    explore(|| {
        let provider = Provider {
            hangs: true,
            ..Provider::default()
        };
        let (cache, clock) = cache(&provider);
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let callers = callers(2, &cache, move |_, result| {
            count.fetch_add(1, Ordering::SeqCst);
            result.unwrap_err().kind()
        });
        while done.load(Ordering::SeqCst) < 2 {
            clock.advance(Duration::from_secs(1));
            block_on(yield_now());
        }
        for caller in callers {
            assert_eq!(block_on(caller).unwrap(), ErrorKind::Timeout);
        }
    });
}
