//! What the cache promises of failures, readiness and evidence.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit, TokenProvider,
};
use tower::{Layer, Service, service_fn};

use crate::support::{Stopwatch, at_once, cache_with, ms, now, poll, s, served, settle, stepped};

#[tokio::test(start_paused = true)]
async fn the_first_transient_failure_is_not_reported() {
    let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::Transport));
    let cache = cache_with(&provider, |builder| builder);
    let watch = Stopwatch::start();
    assert_eq!(served(&cache.token().await), "Bearer scripted-2");
    assert!(watch.elapsed() <= s(1));
}

#[tokio::test(start_paused = true)]
async fn the_second_failure_in_a_row_is_reported_with_the_time_of_the_next_try() {
    let provider = ScriptedProvider::new()
        .then(Step::Fail(ErrorKind::Transport))
        .then(Step::Fail(ErrorKind::Transport));
    let cache = cache_with(&provider, |builder| builder);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(error.retry_after().unwrap() <= s(2));
    assert_eq!(provider.calls(), 2);
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

#[tokio::test]
async fn a_backoff_ends_when_either_clock_says_so() {
    let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::Denied));
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap_err();
    clock.advance_wall(s(59));
    assert!(at_once(cache.token()).unwrap().is_err());
    clock.advance_wall(s(1));
    assert_eq!(served(&cache.token().await), "Bearer scripted-2");
}

/// Refused until its secret is put right.
#[derive(Clone, Default)]
struct Rotated {
    right: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
}

impl TokenProvider for Rotated {
    async fn fetch(&self, _cx: FetchContext) -> Result<AccessToken, Error> {
        match self.right.load(Ordering::SeqCst) {
            true => AccessToken::bearer("right", s(3600)),
            false => Err(Error::new(ErrorKind::InvalidClient, "wrong secret")),
        }
    }

    async fn credentials_changed(&self) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.right.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn other_credentials_end_the_backoff_and_are_looked_for_every_5_s_at_most() {
    let provider = Rotated::default();
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .build()
        .unwrap();
    let cache = layer.cache();
    for _ in 0..20 {
        assert!(cache.token().await.is_err());
        tokio::time::advance(s(1)).await;
    }
    assert_eq!(provider.looks.load(Ordering::SeqCst), 3);
    provider.right.store(true, Ordering::SeqCst);
    tokio::time::advance(s(5)).await;
    assert_eq!(served(&cache.token().await), "Bearer right");
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

#[tokio::test]
async fn token_for_fetches_a_token_that_lives_long_enough() {
    let provider = ScriptedProvider::new();
    let (cache, clock) = stepped(&provider);
    cache.token().await.unwrap();
    clock.advance(s(1800));
    let token = cache.token_for(s(1800)).await;
    assert_eq!(served(&token), "Bearer scripted-1");
    let token = cache.token_for(s(1801)).await;
    assert_eq!(served(&token), "Bearer scripted-2");
    let error = cache.token_for(s(3601)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(provider.calls(), 2, "no fetch could help");
}

/// A day of requests, each a moment after the other, to an API with one
/// forbidden path; all tokens are revoked at noon. Token requests, and for how
/// long good requests were answered 401 after that.
async fn day_of_a_forbidden_path(revoke: bool) -> (usize, Duration) {
    let clock = ManualClock::new();
    let provider = ScriptedProvider::new();
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .clock(clock.clone())
        .build()
        .unwrap();
    layer.cache().token().await.unwrap();
    let revoked = Arc::new(AtomicUsize::new(0));
    let newest_revoked = Arc::clone(&revoked);
    let mut service = layer.layer(service_fn(move |request: Request<()>| {
        let header = request.headers()["authorization"].to_str().unwrap();
        let number = header.rsplit('-').next().unwrap().parse().unwrap();
        let good = !request.uri().path().ends_with("forbidden")
            && newest_revoked.load(Ordering::SeqCst) < number;
        let response = Response::builder().status(if good { 200 } else { 401 });
        std::future::ready(Ok::<_, Infallible>(response.body(()).unwrap()))
    }));
    let (mut time, noon) = (s(0), s(12 * 3600));
    let (mut last_failure, mut count) = (noon, 0_u32);
    while time < s(24 * 3600) {
        // Ten requests a second around noon, one in three seconds else.
        let busy = time + s(60) >= noon && time < noon + s(60);
        let step = if busy { ms(100) } else { s(3) };
        if revoke && time < noon && time + step >= noon {
            revoked.store(provider.calls(), Ordering::SeqCst);
        }
        clock.advance(step);
        time += step;
        count += 1;
        let forbidden = count % 5 == 0;
        let path = if forbidden { "forbidden" } else { "locations" };
        let url = format!("https://app.officernd.com/api/v2/organizations/acme/{path}");
        let response = service.call(Request::get(url).body(()).unwrap());
        if response.await.unwrap().status() == 401 && !forbidden {
            last_failure = time;
        }
        settle_briefly().await;
    }
    (provider.calls(), last_failure.saturating_sub(noon))
}

async fn settle_briefly() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_day_of_one_forbidden_path_costs_less_than_50_token_requests() {
    let (calls, _) = day_of_a_forbidden_path(false).await;
    assert!((30..50).contains(&calls), "{calls}");
}

#[tokio::test]
async fn a_revocation_at_noon_beside_a_forbidden_path_is_over_within_10_s() {
    let (calls, failed_for) = day_of_a_forbidden_path(true).await;
    assert!(failed_for <= s(10), "{failed_for:?}");
    assert!(failed_for > s(0) && calls < 50, "{calls}");
}
