//! Processes that share a token through a store in memory, with the clock paused.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use officernd_auth::provider::{Cause, KeyMaterial};
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, HttpTokenProvider, OfficeRndAuthLayer,
    RateLimit, TokenCache,
};
use officernd_auth_store::testing::{MemoryStore, check_store};
use officernd_auth_store::{SharedTokenProvider, TokenStore};
use tokio::task::JoinSet;
use tokio::time::{advance, sleep};
use tower::service_fn;

use crate::support::{Provider, TestStore, cache, header, limited, ms, now, pod, s, shared};

/// Makes a pod with this clock.
fn pod_with_clock(
    endpoint: &ScriptedProvider,
    store: &(impl TokenStore + Clone),
    clock: &ManualClock,
) -> TokenCache {
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    cache(OfficeRndAuthLayer::builder(provider).clock(clock.clone()))
}

async fn header_of(pod: &TokenCache) -> String {
    header(&pod.token().await.unwrap()).to_owned()
}

#[tokio::test(start_paused = true)]
async fn check_store_accepts_memory_store_and_finds_altered_entries() {
    check_store(&MemoryStore::new()).await.unwrap();

    let store = TestStore::altering(&MemoryStore::new(), |entry| entry.push(0));
    let error = check_store(&store).await.unwrap_err().to_string();
    assert!(error.contains("byte for byte"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shared_token_expires_when_its_original_does() {
    let (endpoint, store) = (ScriptedProvider::new().latency(s(5)), MemoryStore::new());
    let leader = pod(endpoint.clone(), &store);
    let (provider, follower) = shared(endpoint.clone(), &store);
    let lead = tokio::spawn({
        let leader = leader.clone();
        async move { leader.token().await }
    });
    sleep(ms(10)).await;
    let start = now();
    follower.token().await.unwrap();
    assert!(now() - start < s(6), "{:?}", now() - start);
    lead.await.unwrap().unwrap();
    assert_eq!(endpoint.calls(), 1);
    // The lifetime of 3,600 s counts from the request, which took 5 s.
    let left = |cache: &TokenCache| cache.status().expires_in.unwrap();
    assert!(left(&leader) <= s(3595) && left(&leader) > s(3593));
    assert!(left(&follower) <= left(&leader) && left(&follower) > s(3592));
    assert_eq!(provider.status().taken, 1);
    // Each process counts only the requests that it sent.
    assert_eq!(leader.status().token_requests, 1);
    assert_eq!(follower.status().token_requests, 0);

    advance(s(1800)).await;
    let late = pod(endpoint, &store);
    late.token().await.unwrap();
    assert!(left(&late) <= left(&leader) && left(&late) > s(1790));
}

#[tokio::test(start_paused = true)]
async fn a_shared_token_keeps_its_scope() {
    let store = MemoryStore::new();
    for scope in [None, Some(""), Some("a \"b\"")] {
        let provider = Provider::new(move |cx| async move {
            let _permit = cx.permit().await?;
            let token = AccessToken::bearer("abc.DEF-123", s(3600))?;
            Ok(scope.into_iter().fold(token, AccessToken::with_scope))
        });
        let provider = provider.keyed(move || async move {
            KeyMaterial::new("e", "c", "secret").param("scope", format!("{scope:?}"))
        });
        for calls in [1, 0] {
            let pod = pod(provider.clone(), &store);
            let token = pod.token().await.unwrap();
            assert_eq!(header(&token), "Bearer abc.DEF-123");
            assert_eq!(token.scope(), scope);
            assert_eq!(pod.status().token_requests, calls);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_does_not_extend_a_token() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    pod(endpoint.clone(), &store).token().await.unwrap();
    advance(s(1800)).await;
    let clock = ManualClock::new();
    clock.rewind_wall(s(7200));
    let behind = pod_with_clock(&endpoint, &store, &clock);
    behind.token().await.unwrap();
    let left = behind.status().expires_in.unwrap();
    assert!(left <= s(1800) && left > s(1790), "{left:?}");
    assert_eq!(endpoint.calls(), 1);
    // By a clock that is 2 h ahead, the token has expired.
    let clock = ManualClock::new();
    clock.advance_wall(s(7200));
    let ahead = pod_with_clock(&endpoint, &store, &clock);
    ahead.token().await.unwrap();
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_once_for_all() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let pods = [(); 3].map(|()| pod(endpoint.clone(), &store));
    for pod in &pods {
        assert_eq!(header_of(pod).await, "Bearer scripted-1");
    }
    // A younger token is not replaced because of a 401.
    sleep(s(60)).await;
    for pod in &pods {
        pod.reject(&pod.token().await.unwrap());
        sleep(s(2)).await;
        assert_eq!(header_of(pod).await, "Bearer scripted-2");
    }
    assert_eq!(endpoint.causes(), [Cause::Cold, Cause::Rejected]);
    pods[0].refresh().await.unwrap();
    pods[1].refresh().await.unwrap();
    assert_eq!(header_of(&pods[1]).await, "Bearer scripted-3");
    assert_eq!(endpoint.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_one_by_one_do_not_replace_a_young_token_each() {
    // With a missing scope, every token gets a 401.
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let mut pods = Vec::new();
    for _ in 0..10 {
        let pod = pod(endpoint.clone(), &store);
        pod.reject(&pod.token().await.unwrap());
        sleep(s(5)).await;
        // The pod keeps its token.
        assert!(pod.try_token().is_some());
        pods.push(pod);
    }
    assert_eq!(endpoint.calls(), 1);
    assert_eq!(pods[9].status().consecutive_failures, 0);
    // Once it is a minute old, it is replaced once for all pods.
    sleep(s(20)).await;
    for pod in &pods {
        pod.token().await.unwrap();
        sleep(s(1)).await;
    }
    assert_eq!(endpoint.calls(), 2);
    assert_eq!(header_of(&pods[9]).await, "Bearer scripted-2");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_other_credentials_scopes_or_parameters_are_not_shared() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let base = || KeyMaterial::new("e", "c", "secret");
    let all = [
        base(),
        KeyMaterial::new("f", "c", "secret"),
        KeyMaterial::new("e", "d", "secret"),
        KeyMaterial::new("e", "c", "rotated"),
        base().scope("a"),
        base().param("tenant", "b"),
    ];
    for round in 0..2 {
        for (at, material) in all.iter().enumerate() {
            let material = material.clone();
            let provider = Provider::over(&endpoint).keyed(move || {
                let material = material.clone();
                async move { material }
            });
            let pod = limited(
                SharedTokenProvider::new(provider, store.clone()),
                &RateLimit::unlimited(),
            );
            let expected = format!("Bearer scripted-{}", at + 1);
            assert_eq!(header_of(&pod).await, expected, "round {round}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tampered_truncated_swapped_and_replayed_entries_are_misses() {
    let alterations: [fn(&mut Vec<u8>); 5] = [
        |entry| entry[40] ^= 1,
        |entry| entry.truncate(20),
        |entry| entry.clear(),
        |entry| entry.extend([0; 70_000]),
        |entry| *entry = b"{\"access_token\":\"evil\"}".to_vec(),
    ];
    for alter in alterations {
        let endpoint = ScriptedProvider::new();
        let store = TestStore::altering(&MemoryStore::new(), alter);
        let (provider, one) = shared(endpoint.clone(), &store);
        one.token().await.unwrap();
        pod(endpoint.clone(), &store).token().await.unwrap();
        assert_eq!(endpoint.calls(), 2);
        // A miss is not a failure of the store.
        assert!(provider.status().available);
    }

    // Swapped: the entry of other credentials.
    let (endpoint, model) = (ScriptedProvider::new(), MemoryStore::new());
    pod(endpoint.clone(), &model).token().await.unwrap();
    let sealed = model.entries().remove(0);
    let swapped = TestStore::altering(&MemoryStore::new(), {
        let sealed = sealed.clone();
        move |entry| entry.clone_from(&sealed)
    });
    let other =
        || Provider::over(&endpoint).keyed(|| async { KeyMaterial::new("other", "id", "secret") });
    for calls in [2, 3] {
        pod(other(), &swapped).token().await.unwrap();
        assert_eq!(endpoint.calls(), calls);
    }

    // Replayed: an hour later the old entry is returned with a new expiry. By the date inside the
    // seal, it has expired.
    let replayed = TestStore::altering(&MemoryStore::new(), move |entry| entry.clone_from(&sealed));
    let clock = ManualClock::new();
    clock.advance(s(3600));
    let endpoint = ScriptedProvider::new();
    for _ in 0..2 {
        let pod = pod_with_clock(&endpoint, &replayed, &clock);
        pod.token().await.unwrap();
    }
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_until_its_backoff_ends() {
    let store = MemoryStore::new();
    let endpoint = ScriptedProvider::new().then(Step::Fail(ErrorKind::InvalidClient));
    for _ in 0..5 {
        let error = pod(endpoint.clone(), &store).token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidClient);
    }
    assert_eq!(endpoint.calls(), 1);
    advance(s(61)).await;
    // The failure's date is from the wall clock, which tokio does not pause.
    let clock = ManualClock::new();
    clock.advance(s(61));
    let pod = pod_with_clock(&endpoint, &store, &clock);
    pod.token().await.unwrap();
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_behind_does_not_extend_a_failure() {
    let store = MemoryStore::new();
    let busy = Error::new(ErrorKind::RateLimited, "busy").with_retry_after(s(1));
    let endpoint = ScriptedProvider::new().then(Step::Error(busy));
    pod(endpoint.clone(), &store).token().await.unwrap_err();
    let clock = ManualClock::new();
    clock.rewind_wall(s(600));
    let behind = pod_with_clock(&endpoint, &store, &clock);
    let error = behind.token().await.unwrap_err();
    assert!(error.retry_after().unwrap() <= s(1), "{error:?}");
    assert_eq!(endpoint.calls(), 1);
}

/// Calls all pods at once. Returns the time between the first and the last result, and the number of
/// failures.
async fn spread(pods: &[TokenCache]) -> (Duration, usize) {
    let mut calls = JoinSet::new();
    for pod in pods {
        let pod = pod.clone();
        calls.spawn(async move { (pod.token().await.is_err(), now()) });
    }
    let results = calls.join_all().await;
    let ends = results.iter().map(|(_, at)| *at);
    let spread = ends.clone().max().unwrap() - ends.min().unwrap();
    (spread, results.iter().filter(|(failed, _)| *failed).count())
}

#[tokio::test(start_paused = true)]
async fn the_last_pod_gets_a_token_or_a_failure_within_a_second_of_the_first() {
    for (latency, fails) in [(300, false), (3000, false), (300, true), (3000, true)] {
        let store = MemoryStore::new();
        let endpoint = ScriptedProvider::new().latency(ms(latency));
        if fails {
            endpoint.push(Step::Fail(ErrorKind::Denied));
        }
        let pods: Vec<_> = (0..200).map(|_| pod(endpoint.clone(), &store)).collect();
        let (spread, failed) = spread(&pods).await;
        assert!(spread <= s(1), "{latency} ms: {spread:?}");
        assert_eq!(failed, if fails { 200 } else { 0 });
        assert_eq!(endpoint.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_may_not_send_takes_no_slot_and_no_permit() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let process = |rate_limit: &RateLimit| {
        limited(
            SharedTokenProvider::new(endpoint.clone(), store.clone()),
            rate_limit,
        )
    };
    let (used, unused, other) = (
        RateLimit::new(1, s(60)),
        RateLimit::new(1, s(60)),
        RateLimit::new(1, s(60)),
    );
    // This process has used its one permit; the store's slot is free.
    let elsewhere = limited(ScriptedProvider::new(), &used);
    elsewhere.token().await.unwrap();
    let error = process(&used).token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    let start = now();
    process(&unused).token().await.unwrap();
    assert!(now() - start < s(1), "{:?}", now() - start);

    // The store's slot is used; this process has a permit.
    let cache = process(&other);
    cache.token().await.unwrap();
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(endpoint.calls(), 1);
    let elsewhere = limited(ScriptedProvider::new(), &other);
    elsewhere.token().await.unwrap();
    assert!(now() - start < s(1), "{:?}", now() - start);
}

#[tokio::test(start_paused = true)]
async fn processes_wait_for_a_slot_longer_than_a_lease_lasts_and_send_one_request() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let pods = [(); 4].map(|()| {
        let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
        limited(provider, &RateLimit::new(1, s(20)))
    });
    for pod in &pods {
        pod.token().await.unwrap();
    }
    // The first pod has used the one slot of these 20 s.
    let start = now();
    let mut calls = JoinSet::new();
    for pod in pods.into_iter().skip(1) {
        calls.spawn(async move { pod.refresh().await.unwrap() });
    }
    calls.join_all().await;
    assert!(now() - start >= s(20) && now() - start < s(22));
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_three_seconds_once_in_ten() {
    let (endpoint, store) = (ScriptedProvider::new(), TestStore::default());
    let (provider, cache) = shared(endpoint, &store);
    store.set_delays(s(3600), s(3600));
    let start = now();
    cache.token().await.unwrap();
    assert_eq!(now() - start, s(3));
    assert!(!provider.status().available);
    cache.refresh().await.unwrap();
    assert_eq!(now() - start, s(3));
    assert_eq!(provider.status().direct, 2);
    store.set_delays(s(0), s(0));
    sleep(s(10)).await;
    cache.refresh().await.unwrap();
    let status = provider.status();
    assert!(status.available);
    assert_eq!((status.fetched, status.failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn debug_and_status_show_no_secret() {
    let endpoint = service_fn(async |_: Request<Full<Bytes>>| {
        let body = r#"{"access_token":"hunter2token","token_type":"Bearer","expires_in":3600}"#;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
    });
    let credentials = ClientCredentials::new("the-id", "hunter2").scope("a");
    let endpoint = HttpTokenProvider::with_service(credentials, endpoint).unwrap();
    let (provider, cache) = shared(endpoint, &MemoryStore::new());
    let mut shown = String::new();
    for _ in 0..2 {
        shown += &format!(
            "{provider:?} {provider:#?} {cache:?} {:?}",
            provider.status()
        );
        shown += &serde_json::to_string(&provider.status()).unwrap();
        assert_eq!(header(&cache.token().await.unwrap()), "Bearer hunter2token");
    }
    assert_eq!(provider.status().fetched, 1);
    assert!(shown.contains("the-id"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
