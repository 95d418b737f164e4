//! Many caches on one allowance: the order in which they are served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use officernd_auth::{
    AccessToken, Allowance, BoxError, ClientCredentials, Error, ErrorKind, HttpTokenProvider,
    OfficeRndAuthLayer, TokenCache, TokenProvider, provider_fn,
};
use tokio::task::JoinSet;
use tower::service_fn;

use crate::support::{Stopwatch, s};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn cache(provider: impl TokenProvider, allowance: &Allowance) -> TokenCache {
    let builder = OfficeRndAuthLayer::builder(provider).allowance(allowance.clone());
    builder.build().unwrap().cache().clone()
}

/// A cache whose token endpoint answers after `delay`, and how often it was asked.
fn healthy(allowance: &Allowance, delay: Duration) -> (TokenCache, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = provider_fn(move || {
        let token = format!("token-{}", count.fetch_add(1, Ordering::Relaxed));
        async move {
            tokio::time::sleep(delay).await;
            AccessToken::bearer(token, HOUR)
        }
    });
    (cache(provider, allowance), asked)
}

fn broken(allowance: &Allowance) -> TokenCache {
    let provider = provider_fn(|| async {
        tokio::time::sleep(s(1) / 5).await;
        Err(Error::new(
            ErrorKind::InvalidClient,
            "the secret was revoked",
        ))
    });
    cache(provider, allowance)
}

/// All of them at once. How many got a token, and the shortest `retry_after`.
async fn all_at_once(caches: usize) -> (usize, Duration) {
    let allowance = Allowance::new(5, s(60));
    let mut calls = JoinSet::new();
    for _ in 0..caches {
        let (cache, _) = healthy(&allowance, s(5));
        calls.spawn(async move { cache.token().await });
    }
    let mut served = 0;
    let mut shortest = Duration::MAX;
    while let Some(result) = calls.join_next().await {
        match result.unwrap() {
            Ok(_) => served += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::RateLimited);
                shortest = shortest.min(error.retry_after().unwrap());
            }
        }
    }
    (served, shortest)
}

#[tokio::test(start_paused = true)]
async fn more_caches_than_fit_into_any_queue_are_refused_without_spinning() {
    for caches in [4_101, 4_102, 10_000] {
        let time = Stopwatch::start();
        let (served, shortest) = all_at_once(caches).await;
        assert_eq!(served, 5, "{caches}");
        // Five are out, so nothing is free before one window is over.
        assert!(shortest >= s(60), "{shortest:?}");
        assert!(time.elapsed() <= s(30), "{:?}", time.elapsed());
    }
}

/// 100 healthy caches and the broken ones, each asked for a token every 30 s,
/// the broken ones first. The share of failed healthy requests, counted after
/// the first two hours.
async fn failed_beside(broken_caches: usize, hours: u32) -> (usize, usize) {
    let allowance = Allowance::new(5, s(60));
    let broken: Vec<TokenCache> = (0..broken_caches).map(|_| broken(&allowance)).collect();
    let healthy: Vec<TokenCache> = (0..100).map(|_| healthy(&allowance, s(1) / 5).0).collect();
    let start = Stopwatch::start();
    let (mut failed, mut requests) = (0, 0);
    let mut ticks = tokio::time::interval(s(30));
    while start.elapsed() < hours * HOUR {
        ticks.tick().await;
        for cache in &broken {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await });
        }
        let mut calls = JoinSet::new();
        for cache in healthy.iter().filter(|cache| cache.try_token().is_none()) {
            let cache = cache.clone();
            calls.spawn(async move { cache.token().await });
        }
        let counts = start.elapsed() >= 2 * HOUR;
        requests += if counts { healthy.len() } else { 0 };
        while let Some(result) = calls.join_next().await {
            failed += usize::from(counts && result.unwrap().is_err());
        }
    }
    (failed, requests)
}

#[tokio::test(start_paused = true)]
async fn no_number_of_broken_caches_fails_a_request_of_a_healthy_one() {
    for broken in [30, 120] {
        let (failed, requests) = failed_beside(broken, 12).await;
        assert!(requests > 100_000);
        assert_eq!(failed, 0, "of {requests}, beside {broken} broken caches");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_caches_take_turns_and_are_served_when_they_were_told() {
    const CACHES: usize = 10_000;
    const HOURS: u32 = 45;

    let allowance = Allowance::new(5, s(60));
    let (caches, asked): (Vec<TokenCache>, Vec<Arc<AtomicUsize>>) =
        (0..CACHES).map(|_| healthy(&allowance, s(1) / 3)).unzip();
    let start = Stopwatch::start();
    // When each comes next, and whether `retry_after` asked for it.
    let mut visits = BTreeMap::new();
    for id in 0..CACHES {
        visits.insert((Duration::ZERO, id), false);
    }
    let (mut told, mut served) = (0_usize, 0_usize);
    let mut calls = JoinSet::new();
    // The first round takes 34 hours; ten more of the second follow.
    while start.elapsed() < HOURS * HOUR {
        let next = visits.first_key_value().map(|(&(at, _), _)| at);
        let arrival = async {
            match next {
                Some(at) => tokio::time::sleep(at.saturating_sub(start.elapsed())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(result) = calls.join_next(), if !calls.is_empty() => {
                let (id, was_told, result): (usize, bool, Result<AccessToken, Error>) =
                    result.unwrap();
                told += usize::from(was_told);
                let (after, told_to_come) = match result {
                    // Until the token is dead.
                    Ok(_) => {
                        served += usize::from(was_told);
                        (HOUR + s(1), false)
                    }
                    Err(error) => (error.retry_after().unwrap(), true),
                };
                visits.insert((start.elapsed() + after, id), told_to_come);
            }
            () = arrival => {
                let ((_, id), was_told) = visits.pop_first().unwrap();
                let cache = caches[id].clone();
                calls.spawn(async move { (id, was_told, cache.token().await) });
            }
        }
    }
    assert!(told > CACHES, "{told}");
    assert!(served * 100 >= told * 95, "{served} of {told}");
    let times: Vec<usize> = asked
        .iter()
        .map(|asked| asked.load(Ordering::Relaxed))
        .collect();
    // Round robin: no cache has a third token before all have a second.
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*least >= 1 && *most <= least + 1, "{least} to {most}");
    // And five a minute are really used: at least nine of ten.
    let sent: usize = times.iter().sum();
    let possible = usize::try_from(HOURS).unwrap() * 60 * 5;
    assert!(sent * 10 >= possible * 9, "{sent} of {possible}");
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_for_a_window_after_its_answer_whatever_its_cache_is_asked() {
    let allowance = Allowance::new(1, s(60));
    let (slow, _) = healthy(&allowance, s(9));
    let (other, _) = healthy(&allowance, Duration::ZERO);
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
async fn a_refresh_that_a_request_begins_to_wait_for_passes_the_other_refreshes() {
    let allowance = Allowance::new(2, s(60));
    let (first, _) = healthy(&allowance, Duration::ZERO);
    let (second, asked) = healthy(&allowance, Duration::ZERO);
    first.token().await.unwrap();
    tokio::time::sleep(s(10)).await;
    let old = second.token().await.unwrap();
    // Both are to be replaced in the background, the first one first: at 60 s
    // and at 70 s the window has room.
    tokio::time::sleep(s(35)).await;
    for cache in [&first, &second] {
        assert!(cache.reject(&cache.try_token().unwrap()));
    }
    tokio::time::sleep(s(5)).await;
    let start = Stopwatch::start();
    let new = second.refresh().await.unwrap();
    assert!(new.generation() > old.generation());
    assert!(start.elapsed() < s(15), "{:?}", start.elapsed());
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(first.status().generation, 1);
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
async fn a_429_closes_the_window_to_its_client_and_two_to_everybody_at_the_url() {
    const URL: &str = "https://refused.test/token";
    let (first, _) = client(URL, "a", 1);
    let (sibling, siblings) = client(URL, "a", 0);
    let (other, others) = client(URL, "b", 0);
    let (second, _) = client(URL, "c", 1);
    let (third, thirds) = client(URL, "d", 0);
    let (elsewhere, _) = client("https://elsewhere.test/token", "a", 0);

    first.token().await.unwrap_err();
    let error = sibling.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    let after = error.retry_after().unwrap();
    assert!(s(599) <= after && after <= s(600), "{after:?}");
    assert_eq!(count(&siblings), 0);
    // Another client is served, and so is the same one elsewhere.
    other.token().await.unwrap();
    elsewhere.token().await.unwrap();
    assert_eq!(count(&others), 1);

    // Until a second client is refused.
    second.token().await.unwrap_err();
    third.token().await.unwrap_err();
    assert_eq!(count(&thirds), 0);

    tokio::time::sleep(s(601)).await;
    sibling.token().await.unwrap();
    third.token().await.unwrap();
    assert_eq!((count(&siblings), count(&thirds)), (1, 1));
}

#[test]
fn a_test_that_advanced_a_day_leaves_nothing_behind() {
    const URL: &str = "https://tomorrow.test/token";
    let runtime = |paused| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(paused).build().unwrap()
    };
    runtime(true).block_on(async {
        tokio::time::advance(24 * HOUR).await;
        for id in ["a", "b"] {
            client(URL, id, 1).0.token().await.unwrap_err();
        }
        for id in ["c", "d", "e", "f"] {
            client(URL, id, 0).0.token().await.unwrap_err();
        }
    });
    runtime(false).block_on(async {
        client(URL, "a", 0).0.token().await.unwrap();
    });
}
