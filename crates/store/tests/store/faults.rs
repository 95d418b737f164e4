//! Faults of the token endpoint, of connections, of credentials, and of a store's answers. In memory, with
//! the clock paused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use officernd_auth::provider::KeyMaterial;
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, TokenCache, TokenProvider,
};
use officernd_auth_store::testing::MemoryStore;
use officernd_auth_store::{
    Claim, Claimed, Finish, Name, SharedTokenProvider, StoredEntry, TokenStore,
};
use tokio::time::sleep;
use tower::service_fn;

use crate::support::{
    Provider, TestStore, cache, call_all, drive, header, limited, ms, now, pod, s, shared,
};

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_retried_before_callers_see_it_and_the_second_one_is_not() {
    for (failures, pods, each) in [(1, 1, 100), (1, 20, 5), (2, 10, 3)] {
        let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
        for _ in 0..failures {
            endpoint.push(Step::Fail(ErrorKind::Transport));
        }
        let pods: Vec<_> = (0..pods).map(|_| pod(endpoint.clone(), &store)).collect();
        let start = now();
        for result in call_all(&pods, each).await {
            match failures {
                1 => assert!(result.is_ok(), "{result:?}"),
                _ => assert_eq!(result.unwrap_err().kind(), ErrorKind::Transport),
            }
        }
        assert!(now() - start < s(4), "{:?}", now() - start);
        assert_eq!(endpoint.calls(), 2, "{} pods", pods.len());
    }
}

/// An app whose right secret is "right". Counts the token requests.
fn app(requests: &Arc<AtomicUsize>) -> (Provider, Arc<Mutex<&'static str>>) {
    let (requests, secret) = (Arc::clone(requests), Arc::new(Mutex::new("wrong")));
    let provider = Provider::new({
        let secret = Arc::clone(&secret);
        move |cx| {
            let (requests, secret) = (Arc::clone(&requests), Arc::clone(&secret));
            async move {
                let _permit = cx.permit().await?;
                requests.fetch_add(1, Ordering::SeqCst);
                match *secret.lock().unwrap() {
                    "right" => AccessToken::bearer("right", s(3600)),
                    _ => Err(Error::new(ErrorKind::InvalidClient, "wrong secret")),
                }
            }
        }
    });
    (provider.secret(&secret), secret)
}

#[tokio::test(start_paused = true)]
async fn a_corrected_secret_is_used_within_5_s_and_a_wrong_one_is_not_sent_again() {
    for (down, count) in [(false, 3), (true, 1)] {
        let (store, requests) = (TestStore::default(), Arc::default());
        store.set_down(down);
        let apps: Vec<_> = (0..count).map(|_| app(&requests)).collect();
        let pods: Vec<_> = apps
            .iter()
            .map(|(app, _)| pod(app.clone(), &store))
            .collect();
        for pod in &pods {
            let error = pod.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidClient);
            assert!(error.retry_after().unwrap() <= s(5), "{error:?}");
            drive(pod);
        }
        sleep(s(50)).await;
        assert_eq!(requests.load(Ordering::SeqCst), 1, "down: {down}");
        for (_, secret) in &apps {
            *secret.lock().unwrap() = "right";
        }
        sleep(ms(6_100)).await;
        for pod in &pods {
            assert!(pod.try_token().is_some(), "down: {down}");
        }
        assert_eq!(requests.load(Ordering::SeqCst), 2, "down: {down}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_read_from_the_store_does_not_count_as_ones_own() {
    let endpoint = ScriptedProvider::new().then(Step::Fail(ErrorKind::Denied));
    let store = MemoryStore::new();
    let pods = [(); 2].map(|()| pod(endpoint.clone(), &store));
    for pod in &pods {
        let error = pod.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.retry_after().unwrap() <= s(60));
    }
    let failures = pods.each_ref().map(|pod| pod.status().consecutive_failures);
    assert_eq!(failures, [1, 0]);
    // The second pod waits for the shared backoff, not longer.
    sleep(ms(60_500)).await;
    pods[1].token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_stored_again_beside_a_failed_refresh_is_not_a_new_one() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let pods = [(); 2].map(|()| pod(endpoint.clone(), &store));
    call_all(&pods, 1).await;
    endpoint.push(Step::Fail(ErrorKind::Denied));
    sleep(s(45 * 60 + 1)).await;
    call_all(&pods, 1).await;
    sleep(s(5)).await;
    assert_eq!(endpoint.calls(), 2);
    pods.iter().for_each(drive);
    sleep(s(130)).await;
    let generations = pods.map(|pod| pod.status().generation);
    assert_eq!((generations, endpoint.calls()), ([2, 2], 3));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_cannot_connect_leaves_no_failure_no_lease_and_no_used_slot() {
    let store = MemoryStore::new();
    let one_a_minute = |connects: bool| {
        let credentials = ClientCredentials::new("id", "secret")
            .scope("officernd.api.read")
            .token_url("https://no-egress.test/");
        let service = service_fn(move |_: Request<Full<bytes::Bytes>>| async move {
            match connects {
                true => Ok(Response::new(Full::<bytes::Bytes>::from(
                    r#"{"access_token":"abc","expires_in":3600}"#,
                ))),
                false => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
            }
        });
        let provider = HttpTokenProvider::with_service(credentials, service).unwrap();
        let provider = SharedTokenProvider::new(provider, store.clone());
        limited(provider, &RateLimit::new(1, s(60)))
    };
    let error = one_a_minute(false).token().await.unwrap_err();
    let kinds = [ErrorKind::Transport, ErrorKind::RateLimited];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    let start = now();
    let token = one_a_minute(true).token().await.unwrap();
    assert_eq!(header(&token), "Bearer abc");
    assert!(now() - start < s(1), "{:?}", now() - start);
}

/// A provider whose credentials cannot be read after `reads` reads.
fn readable(endpoint: &ScriptedProvider, reads: usize) -> Provider {
    let count = Arc::new(AtomicUsize::new(0));
    Provider::over(endpoint).keyed(move || {
        let hangs = count.fetch_add(1, Ordering::SeqCst) >= reads;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            let endpoint = ScriptedProvider::new();
            officernd_auth::provider::KeyedProvider::key_material(&endpoint)
                .await
                .unwrap()
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_second_read_of_the_credentials_that_hangs_costs_a_second_and_no_token() {
    let (endpoint, store) = (ScriptedProvider::new().latency(s(9)), MemoryStore::new());
    let start = now();
    let provider = readable(&endpoint, 1);
    pod(provider, &store).token().await.unwrap();
    assert!(now() - start <= s(10), "{:?}", now() - start);
    // The credentials may have changed, so the token is not stored.
    assert!(store.entries().is_empty());
    // The lease has been released.
    endpoint.set_latency(ms(0));
    pod(endpoint, &store).token().await.unwrap();
    assert!(now() - start <= s(11), "{:?}", now() - start);
}

/// A store that follows a script, and then repeats its last line.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<Line>,
    operations: usize,
    /// The duration of each operation.
    latency: Duration,
}

#[derive(Debug, Clone)]
enum Line {
    Answer(Claimed),
    /// Returns an entry with the id that the caller has seen, or with a new one.
    Seen(Vec<u8>),
    Fails,
    Hangs,
}

/// A fetch with more operations than this does not pause between them.
const SPINS: usize = 2_000;

impl Script {
    fn new(lines: impl IntoIterator<Item = Line>, latency: Duration) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            lines: lines.into_iter().collect(),
            operations: 0,
            latency,
        })))
    }

    fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    async fn next(&self) -> Result<Line, Error> {
        let latency = self.0.lock().unwrap().latency;
        sleep(latency).await;
        let line = {
            let mut script = self.0.lock().unwrap();
            script.operations += 1;
            match script.lines.len() {
                _ if script.operations > SPINS => Line::Fails,
                1 => script.lines[0].clone(),
                _ => script.lines.pop_front().unwrap(),
            }
        };
        match line {
            Line::Fails => Err(Error::new(ErrorKind::Store, "scripted")),
            Line::Hangs => std::future::pending().await,
            line => Ok(line),
        }
    }
}

impl TokenStore for Script {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        match self.next().await? {
            Line::Answer(answer) => Ok(answer),
            Line::Seen(sealed) => {
                let id = claim.seen.clone();
                let id = id.unwrap_or_else(|| Name::digest_of(b"an entry"));
                Ok(Claimed::Entry(StoredEntry::new(id, sealed, s(60))))
            }
            Line::Fails | Line::Hangs => unreachable!(),
        }
    }

    async fn finish(&self, _: &Finish) -> Result<bool, Error> {
        let line = self.next().await?;
        Ok(matches!(line, Line::Answer(Claimed::Granted)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_returns_a_seen_entry_is_put_out_of_use() {
    let store = Script::new([Line::Seen(b"not sealed by us".to_vec())], ms(0));
    let endpoint = ScriptedProvider::new();
    let (provider, pod) = shared(endpoint.clone(), &store);
    pod.token().await.unwrap();
    assert!(store.operations() <= 3, "{}", store.operations());
    assert!(!provider.status().available);
    assert_eq!((provider.status().direct, endpoint.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_not_requested_is_not_used() {
    let store = Script::new([Line::Answer(Claimed::Granted)], ms(0));
    let (endpoint, rate_limit) = (ScriptedProvider::new(), RateLimit::new(1, s(60)));
    // Uses the one permit of the process.
    let other = limited(ScriptedProvider::new(), &rate_limit);
    other.token().await.unwrap();
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let error = limited(provider, &rate_limit).token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(endpoint.calls(), 0);
    assert!(store.operations() <= 3, "{}", store.operations());
}

/// Returns the entry of another process, after this step.
async fn sealed(step: Option<Step>) -> Vec<u8> {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    step.into_iter().for_each(|step| endpoint.push(step));
    let _ = pod(endpoint, &store).token().await;
    store.entries().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ends_in_time_and_does_not_spin_for_any_answers_of_a_store() {
    let entries = [
        sealed(None).await,
        sealed(Some(Step::Token("short".into(), s(5)))).await,
        sealed(Some(Step::Fail(ErrorKind::Denied))).await,
        b"not sealed".to_vec(),
        Vec::new(),
    ];
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(1..12);
        let lines = (0..count).map(|_| match random.u32(0..12) {
            0 => Line::Fails,
            1 => Line::Hangs,
            2 | 3 => Line::Seen(entries[random.usize(..entries.len())].clone()),
            4 | 5 => Line::Answer(Claimed::Leased(ms(random.u64(..30_000)))),
            6 => Line::Answer(Claimed::RateLimited(ms(0))),
            7 => Line::Answer(Claimed::RateLimited(ms(random.u64(..90_000)))),
            8 => Line::Answer(Claimed::Granted),
            _ => {
                let entry = entries[random.usize(..entries.len())].clone();
                let id = Name::digest_of(&[random.u8(..3)]);
                let left = ms(random.u64(..4_000_000));
                Line::Answer(Claimed::Entry(StoredEntry::new(id, entry, left)))
            }
        });
        let lines: Vec<_> = lines.collect();
        let scene = format!("seed {seed}: {lines:?}");
        let endpoint = ScriptedProvider::new().latency(ms(100));
        let store = Script::new(lines, ms(0));
        let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
        let cache = limited(provider, &RateLimit::new(random.u32(..3), s(60)));
        for refresh in [false, true, true] {
            let start = now();
            let result = match refresh {
                false => cache.token().await,
                true => cache.refresh().await,
            };
            if let Err(error) = result {
                let kinds = [
                    ErrorKind::RateLimited,
                    ErrorKind::Timeout,
                    ErrorKind::Denied,
                ];
                assert!(kinds.contains(&error.kind()), "{error:?}, {scene}");
            }
            assert!(now() - start <= s(31), "{:?}, {scene}", now() - start);
        }
        let (operations, calls) = (store.operations(), endpoint.calls());
        assert!(operations <= 600, "{operations} operations, {scene}");
        assert!(calls <= 3, "{calls} token requests, {scene}");
    }
}

/// Makes the caches of one process, one for each tenant.
fn process(tenants: usize, endpoint: &ScriptedProvider, store: &MemoryStore) -> Vec<TokenCache> {
    let rate_limit = RateLimit::new(5, s(60));
    let cache = |tenant: usize| limited(tenant_provider(tenant, endpoint, store), &rate_limit);
    (0..tenants).map(cache).collect()
}

fn tenant_provider(
    tenant: usize,
    endpoint: &ScriptedProvider,
    store: &MemoryStore,
) -> SharedTokenProvider<Provider> {
    let provider = Provider::over(endpoint).keyed(move || async move {
        let material = KeyMaterial::new("https://tenants.test/", "id", "secret");
        material.param("tenant", tenant.to_string())
    });
    SharedTokenProvider::new(provider, store.clone())
}

#[tokio::test(start_paused = true)]
async fn no_cache_starves_behind_a_full_window() {
    for seed in 0..10 {
        fastrand::seed(seed);
        let (endpoint, store) = (ScriptedProvider::new().latency(ms(300)), MemoryStore::new());
        // Two processes share the store's window, and each has a rate limit of its own.
        let mut caches = process(30, &endpoint, &store);
        caches.extend(process(30, &endpoint, &store));
        let start = now();
        caches.iter().for_each(drive);
        while caches.iter().any(|cache| cache.try_token().is_none()) {
            sleep(s(1)).await;
            assert!(now() - start < s(8 * 60), "seed {seed}");
        }
        println!(
            "30 tenants in 2 processes, five a minute: {:?}",
            now() - start
        );
        assert_eq!(endpoint.calls(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_with_a_full_window_takes_stored_tokens_at_once() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    for tenant in 0..100 {
        let provider = tenant_provider(tenant, &endpoint, &store);
        let cache = limited(provider, &RateLimit::unlimited());
        cache.token().await.unwrap();
    }
    // Each cache holds a permit for a moment, until the store has returned the token.
    let caches = process(100, &endpoint, &store);
    let start = now();
    for result in call_all(&caches, 1).await {
        result.unwrap();
    }
    assert!(now() - start < s(1), "{:?}", now() - start);
    assert_eq!(endpoint.calls(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waits_for_a_permit_is_sent_when_it_gets_one() {
    let rate_limit = RateLimit::new(1, s(20));
    let other = limited(ScriptedProvider::new(), &rate_limit);
    other.token().await.unwrap();
    // The store has a free slot, the process has no permit for 20 s.
    let provider = SharedTokenProvider::new(ScriptedProvider::new(), MemoryStore::new());
    let start = now();
    limited(provider, &rate_limit).token().await.unwrap();
    let waited = now() - start;
    assert!(waited >= s(19) && waited < s(21), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waits_for_another_process_holds_no_permit() {
    let rate_limit = RateLimit::new(1, s(60));
    let leased = Script::new([Line::Answer(Claimed::Leased(s(5)))], ms(0));
    let provider = SharedTokenProvider::new(ScriptedProvider::new(), leased);
    let waiting = limited(provider, &rate_limit);
    tokio::spawn(async move { waiting.token().await });
    sleep(ms(1_010)).await;
    let start = now();
    let other = limited(ScriptedProvider::new(), &rate_limit);
    other.token().await.unwrap();
    assert_eq!(now() - start, ms(0));
}

#[tokio::test(start_paused = true)]
async fn a_token_revoked_in_its_first_minute_is_replaced_within_65_s() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let pod = pod(endpoint.clone(), &store);
    pod.token().await.unwrap();
    sleep(s(1)).await;
    pod.reject(&pod.token().await.unwrap());
    drive(&pod);
    sleep(s(57)).await;
    assert_eq!((pod.status().generation, endpoint.calls()), (1, 1));
    sleep(s(7)).await;
    assert_eq!((pod.status().generation, endpoint.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_rolling_deploy_beside_a_forbidden_path_costs_one_token_request_a_minute() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let calls_at = |minutes: u64| {
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            sleep(s(60 * minutes)).await;
            endpoint.calls()
        })
    };
    let (deployed, an_hour_later) = (calls_at(10), calls_at(70));
    for _ in 0..120 {
        let pod = pod(endpoint.clone(), &store);
        tokio::spawn(async move {
            loop {
                pod.reject(&pod.token().await.unwrap());
                sleep(s(1)).await;
            }
        });
        sleep(s(5)).await;
    }
    let calls = (deployed.await.unwrap(), an_hour_later.await.unwrap());
    println!(
        "120 pods, one each 5 s, beside a forbidden path: {calls:?} token requests in 10 and 70 min"
    );
    assert!(calls.0 <= 11 && calls.1 <= calls.0 + 12, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_is_not_cut_off_at_its_callers_deadline() {
    // Leased for some seconds, and then granted.
    let lines = [(); 7].map(|()| Line::Answer(Claimed::Leased(s(5))));
    let granted = Line::Answer(Claimed::Granted);
    let store = Script::new(lines.into_iter().chain([granted]), ms(0));
    let endpoint = ScriptedProvider::new().latency(s(8));
    let provider = SharedTokenProvider::new(endpoint.clone(), store);
    let cache = cache(OfficeRndAuthLayer::builder(provider).acquire_timeout(s(6)));
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(endpoint.calls(), 1);
    sleep(s(9)).await;
    assert!(cache.try_token().is_some());
    assert_eq!(endpoint.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_response_is_stored_although_the_store_is_slow_to_finish() {
    let (endpoint, store) = (ScriptedProvider::new().latency(s(9)), TestStore::default());
    store.set_delays(s(0), s(2));
    let start = now();
    let first = pod(endpoint.clone(), &store);
    assert_eq!(header(&first.token().await.unwrap()), "Bearer scripted-1");
    assert_eq!(now() - start, s(11));
    // The lifetime counts from the request.
    let left = first.status().expires_in.unwrap();
    assert!(left <= s(3600 - 11) && left > s(3600 - 12), "{left:?}");
    let second = pod(endpoint.clone(), &store);
    assert_eq!(header(&second.token().await.unwrap()), "Bearer scripted-1");
    assert_eq!(endpoint.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_request_that_times_out_is_stored_as_a_failure() {
    let endpoint = ScriptedProvider::new().then(Step::Hang);
    let store = TestStore::default();
    store.set_delays(s(0), s(2));
    let start = now();
    drive(&pod(endpoint.clone(), &store));
    sleep(s(12)).await;
    // The lease of 15 s has been released; the failure delays others by 1 s.
    pod(endpoint.clone(), &store).token().await.unwrap();
    let took = now() - start;
    assert!(took > s(13) && took < s(17), "{took:?}");
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_near_its_deadline_neither_blames_the_store_nor_sends_beside_a_leader() {
    for seed in 0..40 {
        fastrand::seed(seed);
        let store = Script::new([Line::Answer(Claimed::Leased(s(5)))], ms(15));
        let endpoint = ScriptedProvider::new();
        let provider = SharedTokenProvider::new(endpoint.clone(), store);
        let layer = OfficeRndAuthLayer::builder(provider.clone()).acquire_timeout(s(6));
        let error = cache(layer).token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "seed {seed}");
        let status = provider.status();
        assert_eq!((status.failures, status.direct), (0, 0), "seed {seed}");
        assert_eq!(endpoint.calls(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_does_not_wait_for_a_slot_that_is_free_too_late() {
    let store = Script::new([Line::Answer(Claimed::RateLimited(ms(29_500)))], ms(0));
    let provider = SharedTokenProvider::new(ScriptedProvider::new(), store);
    let start = now();
    let error = provider.fetch(FetchContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(now() - start < s(1), "{:?}", now() - start);
}

/// A provider that requests its permit after `before`, holds it for `connecting`, and never sends.
fn never_sends(before: Duration, connecting: Duration) -> Provider {
    Provider::new(move |cx| async move {
        sleep(before).await;
        let permit = cx.permit().await?;
        sleep(connecting).await;
        permit.unsent();
        Err(Error::new(ErrorKind::Transport, "no connection"))
    })
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_sent_nothing_before_its_deadline_releases_lease_and_slot() {
    // The source is slow, or the connection fails after the deadline.
    for (before, connecting, ends) in [(s(60), s(0), s(4)), (s(0), s(8), s(8))] {
        let store = TestStore::default();
        store.set_delays(s(0), s(2));
        let one_a_minute = RateLimit::new(1, s(60));
        let slow = SharedTokenProvider::new(never_sends(before, connecting), store.clone());
        let slow = OfficeRndAuthLayer::builder(slow).rate_limit(one_a_minute);
        let slow = cache(slow.acquire_timeout(s(4)));
        let start = now();
        slow.token().await.unwrap_err();
        // `finish` takes 2 s.
        tokio::time::sleep_until((start + ends + ms(2_100)).into()).await;
        let next = SharedTokenProvider::new(ScriptedProvider::new(), store.model);
        let start = now();
        let next = limited(next, &RateLimit::new(1, s(60)));
        next.token().await.unwrap();
        assert!(now() - start < s(1), "{:?}", now() - start);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_sent_nothing_does_not_count_as_a_failure() {
    // A lease that never ends, credentials that cannot be read, a slow source.
    let leased = Script::new([Line::Answer(Claimed::Leased(s(5)))], ms(0));
    let slow = never_sends(s(60), s(0));
    for cache in [
        pod(ScriptedProvider::new(), &leased),
        pod(readable(&ScriptedProvider::new(), 0), &MemoryStore::new()),
        pod(slow.clone(), &MemoryStore::new()),
        TokenCache::new(slow),
    ] {
        let start = now();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(now() - start <= s(30));
        sleep(s(1)).await;
        let status = cache.status();
        assert_eq!((status.consecutive_failures, status.last_error), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_kept_when_the_store_fails_and_when_the_process_was_suspended() {
    for fails in [true, false] {
        let (clock, store) = (ManualClock::new(), TestStore::default());
        store.set_delays(ms(500), ms(0));
        store.set_down(fails);
        store.before_grant({
            let clock = clock.clone();
            async move { clock.advance_wall(s(17)) }
        });
        let rate_limit = RateLimit::new(1, s(600));
        let layer = |builder: officernd_auth::Builder| {
            cache(builder.rate_limit(rate_limit.clone()).clock(clock.clone()))
        };
        let (endpoint, other) = (ScriptedProvider::new(), ScriptedProvider::new());
        let provider = SharedTokenProvider::new(endpoint.clone(), store);
        let first = layer(OfficeRndAuthLayer::builder(provider));
        let second = layer(OfficeRndAuthLayer::builder(other.clone()));
        let start = now();
        let first = tokio::spawn(async move { first.token().await });
        let second = tokio::spawn(async move { second.token().await });
        first.await.unwrap().unwrap();
        assert!(now() - start < s(3), "fails: {fails}, {:?}", now() - start);
        assert_eq!(endpoint.calls(), 1, "fails: {fails}");
        sleep(s(1)).await;
        assert_eq!(other.calls(), 0, "fails: {fails}");
        second.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_failed_connection_is_retried_within_5_s() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let unreachable = Provider::new({
        let attempts = Arc::clone(&attempts);
        move |cx| {
            let attempts = Arc::clone(&attempts);
            async move {
                cx.permit().await?.unsent();
                attempts.fetch_add(1, Ordering::SeqCst);
                Err(Error::new(ErrorKind::Transport, "no connection"))
            }
        }
    });
    drive(&pod(unreachable, &TestStore::down()));
    sleep(s(60)).await;
    // Retries after other failures are up to 30 s apart.
    let attempts = attempts.load(Ordering::SeqCst);
    assert!(attempts >= 10, "{attempts}");
}
