//! Many caches on one rate limit: the order in which they are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use officernd_auth::{
    AccessToken, BoxError, ClientCredentials, Error, ErrorKind, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, TokenCache, TokenProvider, provider_fn,
};
use tokio::task::JoinSet;
use tower::service_fn;

use crate::support::{Stopwatch, s};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn cache(provider: impl TokenProvider, rate_limit: &RateLimit) -> TokenCache {
    let builder = OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit.clone());
    builder.build().unwrap().cache().clone()
}

/// A cache whose token endpoint answers after `delay`, and how often it was asked.
fn healthy(rate_limit: &RateLimit, delay: Duration) -> (TokenCache, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = provider_fn(move || {
        let token = format!("token-{}", count.fetch_add(1, Ordering::Relaxed));
        async move {
            tokio::time::sleep(delay).await;
            AccessToken::bearer(token, HOUR)
        }
    });
    (cache(provider, rate_limit), asked)
}

fn broken(rate_limit: &RateLimit) -> TokenCache {
    let provider = provider_fn(|| async {
        tokio::time::sleep(s(1) / 5).await;
        Err(Error::new(
            ErrorKind::InvalidClient,
            "the secret was revoked",
        ))
    });
    cache(provider, rate_limit)
}

/// Sends a request of 100 healthy caches every 30 s for 12 hours, each beside those of the broken caches, which come
/// first. If a path is forbidden, one request in five is answered 401 whatever its token. Returns the good requests
/// that failed after the first two hours, and how many there were.
async fn failed_beside(broken_caches: usize, forbidden_path: bool) -> (usize, usize) {
    let rate_limit = RateLimit::new(5, s(60));
    let broken: Vec<TokenCache> = (0..broken_caches).map(|_| broken(&rate_limit)).collect();
    let healthy: Vec<TokenCache> = (0..100).map(|_| healthy(&rate_limit, s(1) / 5).0).collect();
    let start = Stopwatch::start();
    let (mut failed, mut requests) = (0, 0);
    let mut ticks = tokio::time::interval(s(30));
    for tick in 0.. {
        ticks.tick().await;
        if start.elapsed() >= 12 * HOUR {
            break;
        }
        let counts = start.elapsed() >= 2 * HOUR;
        for cache in &broken {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await });
        }
        let mut calls = JoinSet::new();
        for (cache, id) in healthy.iter().zip(0..) {
            let forbidden = forbidden_path && (tick + id) % 5 == 0;
            requests += usize::from(counts && !forbidden);
            match cache.try_token() {
                Some(token) if forbidden => drop(cache.reject(&token)),
                Some(_) => {}
                None => {
                    let cache = cache.clone();
                    calls.spawn(async move { cache.token().await.is_err() && !forbidden });
                }
            }
        }
        while let Some(fails) = calls.join_next().await {
            failed += usize::from(counts && fails.unwrap());
        }
    }
    (failed, requests)
}

#[tokio::test(start_paused = true)]
async fn neither_broken_caches_nor_a_forbidden_path_in_every_cache_fail_a_good_request() {
    for (broken, forbidden_path) in [(30, false), (120, false), (0, true)] {
        let (failed, requests) = failed_beside(broken, forbidden_path).await;
        assert!(requests > 90_000);
        let beside = format!("{broken} broken caches, forbidden path: {forbidden_path}");
        assert_eq!(failed, 0, "of {requests} beside {beside}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_for_a_window_after_its_answer_whatever_its_cache_is_asked() {
    let rate_limit = RateLimit::new(1, s(60));
    let (slow, _) = healthy(&rate_limit, s(9));
    let (other, _) = healthy(&rate_limit, Duration::ZERO);
    let waits = slow.clone();
    let waits = tokio::spawn(async move { waits.token().await });
    for _ in 0..3 {
        tokio::time::sleep(s(2)).await;
        assert!(!slow.status().has_token());
    }
    waits.await.unwrap().unwrap();
    // It was answered at 9 s.
    tokio::time::sleep(s(11)).await;
    let error = other.token().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(s(49)));
}

#[tokio::test(start_paused = true)]
async fn a_replacement_after_a_401_goes_behind_a_refresh_also_if_somebody_waits_for_it() {
    let rate_limit = RateLimit::new(1, s(10));
    let (old, refreshed) = healthy(&rate_limit, Duration::ZERO);
    let (new, _) = healthy(&rate_limit, Duration::ZERO);
    let (third, _) = healthy(&rate_limit, Duration::ZERO);
    old.token().await.unwrap();
    // Due for a refresh in any case: at most 10 % later than 45 min.
    tokio::time::sleep(s(50 * 60)).await;
    let rejected = new.token().await.unwrap();
    tokio::time::sleep(s(10)).await;
    third.token().await.unwrap();
    // The 401 is first in line, and its replay waits.
    assert!(new.reject(&rejected));
    let waits = new.clone();
    let waits = tokio::spawn(async move { waits.refresh().await });
    tokio::time::sleep(s(1)).await;
    assert!(old.try_token().is_some());
    tokio::time::sleep(s(10)).await;
    assert_eq!(count(&refreshed), 2);
    assert_eq!(new.status().generation, 1);
    let start = Stopwatch::start();
    waits.await.unwrap().unwrap();
    assert!(start.elapsed() <= s(10), "{:?}", start.elapsed());
}

/// A cache of this client at this token URL, which answers 429 for the first
/// `refusals` requests, and how often it was asked.
fn client(url: &str, id: &str, refusals: usize) -> (TokenCache, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let endpoint = service_fn(move |_: Request<Full<Bytes>>| {
        let refused = count.fetch_add(1, Ordering::Relaxed) < refusals;
        async move {
            let response = match refused {
                true => Response::builder().status(429).header("retry-after", "600"),
                false => Response::builder().status(200),
            };
            let body = r#"{"access_token":"t","expires_in":3600}"#;
            Ok::<_, BoxError>(response.body(Full::new(Bytes::from(body))).unwrap())
        }
    });
    let credentials = ClientCredentials::new(id, "secret")
        .scope("officernd.api.read")
        .token_url(url);
    let provider = HttpTokenProvider::with_service(credentials, endpoint).unwrap();
    (TokenCache::new(provider), asked)
}

fn count(asked: &AtomicUsize) -> usize {
    asked.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_429_shuts_the_window_to_everybody_at_the_url_for_one_window_at_most() {
    const URL: &str = "https://refused.test/token";
    let (refused, _) = client(URL, "a", 1);
    let (other, asked) = client(URL, "b", 0);
    let (elsewhere, _) = client("https://elsewhere.test/token", "a", 0);

    // It says 600 s.
    refused.token().await.unwrap_err();
    elsewhere.token().await.unwrap();
    let error = other.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(s(60)));
    assert_eq!(count(&asked), 0);
    // Only the cache that was refused keeps to that.
    tokio::time::sleep(s(60)).await;
    other.token().await.unwrap();
    let after = refused.token().await.unwrap_err().retry_after();
    assert_eq!(after, Some(s(540)));
}

#[test]
fn a_test_that_advanced_a_day_leaves_nothing_behind() {
    const FULL: &str = "https://full-tomorrow.test/token";
    const SHUT: &str = "https://shut-tomorrow.test/token";
    let runtime = |paused| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(paused).build().unwrap()
    };
    runtime(true).block_on(async {
        tokio::time::advance(24 * HOUR).await;
        for id in ["a", "b", "c", "d", "e"] {
            client(FULL, id, 0).0.token().await.unwrap();
        }
        client(FULL, "f", 0).0.token().await.unwrap_err();
        client(SHUT, "a", 1).0.token().await.unwrap_err();
        client(SHUT, "b", 0).0.token().await.unwrap_err();
    });
    runtime(false).block_on(async {
        client(FULL, "f", 0).0.token().await.unwrap();
        client(SHUT, "b", 0).0.token().await.unwrap();
    });
}
