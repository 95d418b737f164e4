//! A store that is down, slow, or back; and processes that were suspended. In memory, with the clock
//! paused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit, TokenCache,
};
use officernd_auth_store::SharedTokenProvider;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::support::{Provider, TestStore, cache, limited, ms, now, pod, s, shared};

/// A token endpoint that allows five requests in any minute, counts refused requests too, and sends no
/// `Retry-After`.
#[derive(Clone, Default)]
struct Strict {
    arrivals: Arc<Mutex<VecDeque<Instant>>>,
    requests: Arc<AtomicUsize>,
}

impl Strict {
    fn provider(&self) -> Provider {
        let endpoint = self.clone();
        Provider::new(move |cx| endpoint.clone().fetch(cx))
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn fetch(self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let refused = {
            let mut arrivals = self.arrivals.lock().unwrap();
            let now = now();
            arrivals.retain(|at| now - *at < s(60));
            arrivals.push_back(now);
            arrivals.len() > 5
        };
        sleep(ms(300)).await;
        match refused {
            true => Err(Error::new(ErrorKind::RateLimited, "429")),
            false => AccessToken::bearer(format!("strict-{number}"), s(3600)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_without_the_store_closes_the_window_of_the_process_for_its_retry_after() {
    let store = TestStore::down();
    let refused = Error::new(ErrorKind::RateLimited, "429").with_retry_after(s(50));
    let endpoint = ScriptedProvider::new().then(Step::Error(refused));
    let limit = RateLimit::new(5, s(60));
    let [first, other] = [(); 2].map(|()| {
        limited(
            SharedTokenProvider::new(endpoint.clone(), store.clone()),
            &limit,
        )
    });
    first.token().await.unwrap_err();
    sleep(s(15)).await;
    let error = other.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(endpoint.calls(), 1);
}

/// Calls `token` every 5 s until the test ends.
fn drive(cache: &TokenCache) -> AbortHandle {
    let cache = cache.clone();
    let driving = tokio::spawn(async move {
        loop {
            let _ = cache.token().await;
            sleep(s(5)).await;
        }
    });
    driving.abort_handle()
}

/// Returns how many pods have a token.
fn served(pods: &[TokenCache]) -> usize {
    let has_token = |pod: &&TokenCache| pod.try_token().is_some();
    pods.iter().filter(has_token).count()
}

/// Starts pods without a store. Returns how many have a token within `limit`, and after how many token
/// requests.
async fn cold_without_store(count: usize, limit: Duration, seed: u64) -> (usize, usize) {
    fastrand::seed(seed);
    let (endpoint, store) = (Strict::default(), TestStore::down());
    let pods: Vec<_> = (0..count)
        .map(|_| pod(endpoint.provider(), &store))
        .collect();
    let driven: Vec<_> = pods.iter().map(drive).collect();
    let start = now();
    while now() - start < limit && served(&pods) < count {
        sleep(s(5)).await;
    }
    driven.iter().for_each(|driven| driven.abort());
    (served(&pods), endpoint.requests())
}

#[tokio::test(start_paused = true)]
async fn without_a_store_10_pods_have_tokens_within_5_min_20_within_20_and_50_within_an_hour() {
    let seeds = std::env::var("OFFICERND_FLEET_SEEDS").map_or(4, |seeds| seeds.parse().unwrap());
    for (count, minutes, most_requests) in [(10, 5, 70), (20, 20, 140), (50, 60, 350)] {
        let mut missed = 0;
        for seed in 0..seeds {
            let (served, requests) = cold_without_store(count, s(60 * minutes), seed).await;
            missed += u64::from(served < count);
            assert!(served + 2 >= count, "seed {seed}: {served}");
            assert!(requests <= most_requests, "seed {seed}: {requests}");
        }
        println!("{count} pods, {minutes} min without a store: {missed} of {seeds} seeds missed");
        assert!(50 * missed <= seeds, "{missed} of {seeds}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_store_40_of_200_pods_have_tokens_within_an_hour() {
    let (served, requests) = cold_without_store(200, s(60 * 60), 200).await;
    println!("200 pods without a store: {served} have tokens within an hour");
    assert!(served >= 40, "{served}");
    assert!(requests <= 1400, "{requests}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_once_costs_no_extra_request() {
    let (endpoint, store) = (Strict::default(), TestStore::default());
    store.set_delays(ms(600), ms(600));
    let pods = [(); 50].map(|()| shared(endpoint.provider(), &store));
    let calls: Vec<_> = pods
        .iter()
        .map(|(_, pod)| {
            let pod = pod.clone();
            tokio::spawn(async move { pod.token().await })
        })
        .collect();
    sleep(ms(499)).await;
    store.set_delays(s(0), s(0));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(endpoint.requests(), 1);
    for (provider, _) in pods {
        assert_eq!(provider.status().failures, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_fetched_without_the_store_are_shared_within_12_s_of_its_return() {
    for seed in 0..15 {
        fastrand::seed(seed);
        let (endpoint, store) = (Strict::default(), TestStore::down());
        let pods = [(); 30].map(|()| pod(endpoint.provider(), &store));
        for pod in &pods {
            drive(pod);
        }
        sleep(s(5)).await;
        // The endpoint served five pods, and would refuse the others for minutes.
        let requests = endpoint.requests();
        assert_eq!((served(&pods), requests), (5, 30));
        store.set_down(false);
        sleep(s(12)).await;
        assert_eq!(served(&pods), 30, "seed {seed}");
        let (provider, late) = shared(endpoint.provider(), &store);
        late.token().await.unwrap();
        assert_eq!(provider.status().taken, 1);
        assert_eq!(endpoint.requests(), requests);
    }
}

#[tokio::test(start_paused = true)]
async fn the_longer_backoff_without_the_store_ends_when_the_store_is_back() {
    for seed in 0..20 {
        fastrand::seed(seed);
        let (endpoint, store) = (Strict::default(), TestStore::down());
        endpoint.arrivals.lock().unwrap().extend([now(); 5]);
        let pod = pod(endpoint.provider(), &store);
        drive(&pod);
        sleep(s(5)).await;
        assert_eq!(endpoint.requests(), 1);
        store.set_down(false);
        // One window after the 429, not up to four.
        sleep(s(75)).await;
        assert!(pod.try_token().is_some(), "seed {seed}");
        assert_eq!(endpoint.requests(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_offered_to_the_store_for_ten_minutes() {
    let (endpoint, store) = (Strict::default(), TestStore::down());
    let fetching = pod(endpoint.provider(), &store);
    fetching.token().await.unwrap();
    sleep(s(9 * 60)).await;
    assert!(store.operations() > 40, "{}", store.operations());
    sleep(s(90)).await;
    let operations = store.operations();
    sleep(s(120)).await;
    store.set_down(false);
    sleep(s(60)).await;
    assert_eq!(store.operations(), operations);
    assert!(store.model.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_two_tokens_fetched_without_the_store_the_newer_one_is_shared() {
    for seed in 0..20 {
        fastrand::seed(seed);
        let (endpoint, store) = (Strict::default(), TestStore::down());
        let fetching = pod(endpoint.provider(), &store);
        fetching.token().await.unwrap();
        fetching.refresh().await.unwrap();
        store.set_down(false);
        sleep(s(30)).await;
        let token = pod(endpoint.provider(), &store).token().await.unwrap();
        assert_eq!(token.header_value(), "Bearer strict-1", "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_token_fetched_twice_without_the_store_the_longer_lifetime_is_shared() {
    for seed in 0..20 {
        fastrand::seed(seed);
        let (endpoint, store) = (ScriptedProvider::new(), TestStore::down());
        let fetching = pod(endpoint.clone(), &store);
        for life in [s(2000), s(3600)] {
            endpoint.push(Step::Token("same".into(), life));
            fetching.refresh().await.unwrap();
        }
        store.set_down(false);
        sleep(s(30)).await;
        let taking = pod(endpoint.clone(), &store);
        let token = taking.token().await.unwrap();
        assert_eq!(
            (token.header_value().to_str().unwrap(), endpoint.calls()),
            ("Bearer same", 2)
        );
        let left = taking.status().expires_in.unwrap();
        assert!(left > s(3500), "seed {seed}: {left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backoff_without_the_store_does_not_delay_the_use_of_a_stored_token() {
    for seed in 0..5 {
        fastrand::seed(seed);
        let store = TestStore::down();
        let requests = Arc::new(AtomicUsize::new(0));
        let failing = Provider::new({
            let requests = Arc::clone(&requests);
            move |cx| {
                let requests = Arc::clone(&requests);
                async move {
                    let _permit = cx.permit().await?;
                    requests.fetch_add(1, Ordering::SeqCst);
                    Err(Error::new(ErrorKind::Transport, "503"))
                }
            }
        });
        let requests = || requests.load(Ordering::SeqCst);
        let pods = [(); 10].map(|()| pod(failing.clone(), &store));
        for pod in &pods {
            drive(pod);
        }
        // The backoff grows to 30 s, on average 22 s.
        sleep(s(10 * 60)).await;
        assert!(requests() <= 10 * 45, "{}", requests());
        store.set_down(false);
        let endpoint = Strict::default();
        pod(endpoint.provider(), &store).token().await.unwrap();
        let before = requests();
        sleep(s(17)).await;
        assert_eq!(served(&pods), 10, "seed {seed}");
        // At most one each, before the pod notices that the store is back.
        assert!(requests() - before <= 10, "seed {seed}: {}", requests());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_waits_for_the_store_until_half_of_the_remaining_lifetime() {
    let (endpoint, store) = (ScriptedProvider::new(), TestStore::default());
    let provider = SharedTokenProvider::new(endpoint, store.clone());
    let layer = OfficeRndAuthLayer::builder(provider.clone()).refresh_ahead(s(900));
    let pod = cache(layer.jitter(0.0));
    pod.token().await.unwrap();
    drive(&pod);
    store.set_down(true);
    // Due at 45:00, 15 min before expiry.
    sleep(s(52 * 60)).await;
    assert_eq!((provider.status().direct, pod.status().generation), (0, 1));
    assert!(pod.try_token().is_some());
    sleep(s(60)).await;
    assert_eq!((provider.status().direct, pod.status().generation), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_process_suspended_past_its_lease_claims_again_and_sends_nothing() {
    let (endpoint, store) = (ScriptedProvider::new(), TestStore::default());
    let clock = ManualClock::new();
    let sibling = pod(endpoint.clone(), &store.model);
    store.before_grant({
        let clock = clock.clone();
        async move {
            // The lease ends, and another process fetches.
            sleep(s(16)).await;
            sibling.token().await.unwrap();
            clock.advance_wall(s(17));
        }
    });
    let provider = SharedTokenProvider::new(endpoint.clone(), store);
    let suspended = cache(OfficeRndAuthLayer::builder(provider.clone()).clock(clock));
    let token = suspended.token().await.unwrap();
    assert_eq!(token.header_value(), "Bearer scripted-1");
    assert_eq!(endpoint.calls(), 1);
    assert_eq!(provider.status().taken, 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_minted_with_new_credentials_is_not_sealed_under_the_old_ones() {
    let (endpoint, store) = (ScriptedProvider::new(), TestStore::default());
    let secret = Arc::new(Mutex::new("old"));
    // The secret is replaced while the request is in flight.
    let rotating = Provider::new({
        let (endpoint, secret) = (endpoint.clone(), Arc::clone(&secret));
        move |cx| {
            let endpoint = endpoint.clone();
            *secret.lock().unwrap() = "new";
            async move { officernd_auth::TokenProvider::fetch(&endpoint, cx).await }
        }
    });
    let rotating = rotating.secret(&secret);
    pod(rotating, &store).token().await.unwrap();
    sleep(s(1)).await;
    assert!(store.model.entries().is_empty());
    let old = Provider::over(&endpoint).secret(&Arc::new(Mutex::new("old")));
    let token = pod(old, &store).token().await.unwrap();
    assert_eq!(token.header_value(), "Bearer scripted-2");
}

#[tokio::test(start_paused = true)]
async fn processes_with_old_and_new_credentials_share_one_token_each() {
    let (endpoint, store) = (ScriptedProvider::new(), TestStore::default());
    for secret in ["old", "new"].into_iter().cycle().take(20) {
        let provider = Provider::over(&endpoint).secret(&Arc::new(Mutex::new(secret)));
        pod(provider, &store).token().await.unwrap();
        sleep(s(1)).await;
    }
    assert_eq!(endpoint.calls(), 2);
}
