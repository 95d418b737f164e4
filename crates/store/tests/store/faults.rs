//! Faults behind a shared store: of the token endpoint, of the way to it, of the
//! credentials, and of the store's answers. All with the clock paused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use officernd_auth::provider::{KeyMaterial, KeyedProvider};
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, TokenCache, TokenProvider,
};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::MemoryStore;
use officernd_auth_store::{Claim, Claimed, Finish, Name, StoredEntry, TokenStore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::service_fn;

use crate::support::{header, ms, now, s};

/// A cache with a rate limit of its own, as in a process of its own.
fn pod<P: KeyedProvider>(provider: P, store: &(impl TokenStore + Clone)) -> TokenCache {
    let provider = SharedTokenProvider::new(provider, store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).rate_limit(RateLimit::new(5, s(60)));
    layer.jitter(0.0).build().unwrap().cache().clone()
}

/// Every result of callers that all ask at once, `each` of them in each pod.
async fn ask_all(pods: &[TokenCache], each: usize) -> Vec<Result<AccessToken, Error>> {
    let mut asked = JoinSet::new();
    for pod in pods.iter().flat_map(|pod| vec![pod; each]) {
        let pod = pod.clone();
        asked.spawn(async move { pod.token().await });
    }
    asked.join_all().await
}

/// Asks for a token every second, for as long as the test runs.
fn drive(cache: &TokenCache) {
    let cache = cache.clone();
    tokio::spawn(async move {
        loop {
            let _ = cache.token().await;
            sleep(s(1)).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn one_hiccup_of_the_token_endpoint_fails_no_waiting_caller() {
    for (pods, each) in [(1, 100), (20, 5)] {
        let endpoint = ScriptedProvider::new().then(Step::Fail(ErrorKind::Transport));
        let store = MemoryStore::new();
        let pods: Vec<_> = (0..pods).map(|_| pod(endpoint.clone(), &store)).collect();
        let start = now();
        let failed = ask_all(&pods, each).await;
        let failed = failed.iter().filter(|result| result.is_err()).count();
        assert_eq!(failed, 0, "{} pods", pods.len());
        assert!(now() - start < s(4), "{:?}", now() - start);
        assert_eq!(endpoint.calls(), 2, "{} pods", pods.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_failure_in_a_row_is_the_answer_of_all() {
    let endpoint = ScriptedProvider::new();
    for _ in 0..2 {
        endpoint.push(Step::Fail(ErrorKind::Transport));
    }
    let store = MemoryStore::new();
    let pods: Vec<_> = (0..10).map(|_| pod(endpoint.clone(), &store)).collect();
    let start = now();
    for result in ask_all(&pods, 3).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Transport);
    }
    assert!(now() - start < s(4), "{:?}", now() - start);
    assert_eq!(endpoint.calls(), 2);
}

/// The endpoint of an app, as a process sees it whose secret can be changed.
#[derive(Clone)]
struct Rotated {
    secret: Arc<Mutex<&'static str>>,
    requests: Arc<AtomicUsize>,
}

impl Rotated {
    fn with(secret: &'static str, requests: &Arc<AtomicUsize>) -> Self {
        Self {
            secret: Arc::new(Mutex::new(secret)),
            requests: Arc::clone(requests),
        }
    }
}

impl TokenProvider for Rotated {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        match *self.secret.lock().unwrap() {
            "right" => AccessToken::bearer("right", s(3600)),
            _ => Err(Error::new(ErrorKind::InvalidClient, "wrong secret")),
        }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

impl KeyedProvider for Rotated {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        let secret = *self.secret.lock().unwrap();
        Ok(KeyMaterial::new("https://rotated.test/", "id", secret))
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrected_secret_heals_within_5_s_and_a_wrong_one_is_not_sent_again() {
    let (store, requests) = (MemoryStore::new(), Arc::default());
    let apps = [0; 3].map(|_| Rotated::with("wrong", &requests));
    let pods = apps.clone().map(|app| pod(app, &store));
    for pod in &pods {
        let error = pod.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidClient);
        assert!(error.retry_after().unwrap() <= s(5), "{error:?}");
        drive(pod);
    }
    sleep(s(50)).await;
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    for app in &apps {
        *app.secret.lock().unwrap() = "right";
    }
    sleep(ms(6_100)).await;
    for pod in &pods {
        assert!(pod.try_token().is_some());
    }
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_refused_secret_is_not_sent_again_either() {
    let (store, requests) = (Script::default(), Arc::default());
    store.away();
    let app = Rotated::with("wrong", &requests);
    let pod = pod(app.clone(), &store);
    drive(&pod);
    sleep(s(55)).await;
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    *app.secret.lock().unwrap() = "right";
    sleep(ms(6_100)).await;
    assert!(pod.try_token().is_some());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_another_process_is_not_counted_as_ones_own() {
    let endpoint = ScriptedProvider::new().then(Step::Fail(ErrorKind::Denied));
    let store = MemoryStore::new();
    let pods = [0; 2].map(|_| pod(endpoint.clone(), &store));
    for pod in &pods {
        let error = pod.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.retry_after().unwrap() <= s(60));
    }
    let failures = pods.clone().map(|pod| pod.status().consecutive_failures);
    assert_eq!(failures, [1, 0]);
    // Its hold is the fleet's, not longer.
    sleep(ms(60_500)).await;
    pods[1].token().await.unwrap();
}

/// Both have a token. A refresh ahead of time fails, and saves it again.
#[tokio::test(start_paused = true)]
async fn a_token_that_a_failed_refresh_has_saved_again_is_no_new_one() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let pods = [0; 2].map(|_| pod(endpoint.clone(), &store));
    ask_all(&pods, 1).await;
    endpoint.push(Step::Fail(ErrorKind::Denied));
    sleep(s(45 * 60 + 1)).await;
    ask_all(&pods, 1).await;
    sleep(s(5)).await;
    assert_eq!(endpoint.calls(), 2);
    pods.iter().for_each(drive);
    sleep(s(130)).await;
    let generations = pods.clone().map(|pod| pod.status().generation);
    assert_eq!((generations, endpoint.calls()), ([2, 2], 3));
}

/// A token endpoint over a service in memory.
fn http(connects: bool) -> HttpTokenProvider {
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
    HttpTokenProvider::with_service(credentials, service).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_process_without_egress_holds_no_other_up() {
    let store = MemoryStore::new();
    let one_a_minute = |provider| {
        let provider = SharedTokenProvider::new(provider, store.clone());
        let layer = OfficeRndAuthLayer::builder(provider).rate_limit(RateLimit::new(1, s(60)));
        layer.build().unwrap().cache().clone()
    };
    let cut_off = one_a_minute(http(false));
    let error = cut_off.token().await.unwrap_err();
    assert!(
        [ErrorKind::Transport, ErrorKind::RateLimited].contains(&error.kind()),
        "{error:?}"
    );
    // Neither a failure, nor a lease, nor the one place of the fleet is left.
    let start = now();
    assert_eq!(
        header(&one_a_minute(http(true)).token().await.unwrap()),
        "Bearer abc"
    );
    assert!(now() - start < s(1), "{:?}", now() - start);
}

/// A provider whose credentials can be read once.
struct ReadOnce {
    endpoint: ScriptedProvider,
    looks: AtomicUsize,
}

impl TokenProvider for ReadOnce {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        self.endpoint.fetch(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.endpoint.rate_limit()
    }
}

impl KeyedProvider for ReadOnce {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        if self.looks.fetch_add(1, Ordering::SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        self.endpoint.key_material().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_look_at_the_credentials_that_hangs_costs_a_second_and_no_token() {
    let (endpoint, store) = (ScriptedProvider::new().latency(s(9)), MemoryStore::new());
    let provider = ReadOnce {
        endpoint: endpoint.clone(),
        looks: AtomicUsize::default(),
    };
    let start = now();
    pod(provider, &store).token().await.unwrap();
    assert!(now() - start <= s(10), "{:?}", now() - start);
    // Whose token it is is not known: it is not stored.
    assert!(store.entries().is_empty());
    // The lease was given up.
    endpoint.set_latency(ms(0));
    pod(endpoint, &store).token().await.unwrap();
    assert!(now() - start <= s(11), "{:?}", now() - start);
}

/// A store that answers as a script says, then as the last line of it.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<Line>,
    operations: usize,
    away: bool,
    /// How long each operation takes.
    latency: Duration,
}

#[derive(Debug, Clone)]
enum Line {
    Answer(Claimed),
    /// The entry that the caller says it has seen, or another one.
    Seen(Vec<u8>),
    Fails,
    Hangs,
}

/// A loop that asks more often than this does not wait between its questions.
const SPINS: usize = 2_000;

impl Script {
    fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        let script = Self::default();
        script.0.lock().unwrap().lines = lines.into_iter().collect();
        script
    }

    fn away(&self) {
        self.0.lock().unwrap().away = true;
    }

    fn latency(self, latency: Duration) -> Self {
        self.0.lock().unwrap().latency = latency;
        self
    }

    fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    async fn next(&self) -> Line {
        let latency = self.0.lock().unwrap().latency;
        if !latency.is_zero() {
            sleep(latency).await;
        }
        let mut script = self.0.lock().unwrap();
        script.operations += 1;
        if script.away || script.operations > SPINS {
            return Line::Fails;
        }
        match script.lines.len() {
            0 => Line::Answer(Claimed::Granted),
            1 => script.lines[0].clone(),
            _ => script.lines.pop_front().unwrap(),
        }
    }
}

impl TokenStore for Script {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        match self.next().await {
            Line::Answer(answer) => Ok(answer),
            Line::Seen(sealed) => {
                let id = claim.seen.clone();
                let id = id.unwrap_or_else(|| Name::digest_of(b"an entry"));
                Ok(Claimed::Entry(StoredEntry::new(id, sealed, s(60))))
            }
            Line::Fails => Err(Error::new(ErrorKind::Store, "as the script says")),
            Line::Hangs => std::future::pending().await,
        }
    }

    async fn finish(&self, _: &Finish) -> Result<bool, Error> {
        match self.next().await {
            Line::Answer(answer) => Ok(answer == Claimed::Granted),
            Line::Seen(_) => Ok(false),
            Line::Fails => Err(Error::new(ErrorKind::Store, "as the script says")),
            Line::Hangs => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_returns_an_entry_that_was_seen_is_stepped_around() {
    let store = Script::new([Line::Seen(b"not sealed by us".to_vec())]);
    let endpoint = ScriptedProvider::new();
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    TokenCache::new(provider.clone()).token().await.unwrap();
    assert!(store.operations() <= 3, "{}", store.operations());
    assert!(!provider.status().available);
    assert_eq!((provider.status().direct, endpoint.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_grants_what_was_not_asked_for_is_stepped_around() {
    let store = Script::new([Line::Answer(Claimed::Granted)]);
    let rate_limit = RateLimit::new(1, s(60));
    let cache = |provider| {
        let layer = OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit.clone());
        layer.build().unwrap().cache().clone()
    };
    let (endpoint, other) = (ScriptedProvider::new(), ScriptedProvider::new());
    // The process's one request is spent.
    let layer = OfficeRndAuthLayer::builder(other).rate_limit(rate_limit.clone());
    layer.build().unwrap().cache().token().await.unwrap();
    let error = cache(SharedTokenProvider::new(endpoint.clone(), store.clone()))
        .token()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(endpoint.calls(), 0);
    assert!(store.operations() <= 3, "{}", store.operations());
}

/// An entry as another process sealed it.
async fn sealed(step: Option<Step>) -> Vec<u8> {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    step.into_iter().for_each(|step| endpoint.push(step));
    let _ = pod(endpoint, &store).token().await;
    store.entries().remove(0)
}

#[tokio::test(start_paused = true)]
async fn whatever_a_store_answers_a_fetch_ends_in_time_and_does_not_spin() {
    let entries = [
        sealed(None).await,
        sealed(Some(Step::Token("short".into(), s(5)))).await,
        sealed(Some(Step::Fail(ErrorKind::Denied))).await,
        b"junk".to_vec(),
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
                Line::Answer(Claimed::Entry(StoredEntry::new(
                    id,
                    entry,
                    ms(random.u64(..4_000_000)),
                )))
            }
        });
        let lines: Vec<_> = lines.collect();
        let (endpoint, store) = (
            ScriptedProvider::new().latency(ms(100)),
            Script::new(lines.clone()),
        );
        let layer =
            OfficeRndAuthLayer::builder(SharedTokenProvider::new(endpoint.clone(), store.clone()))
                .rate_limit(RateLimit::new(random.u32(..3), s(60)));
        let cache = layer.build().unwrap().cache().clone();
        for refresh in [false, true, true] {
            let start = now();
            let result = match refresh {
                false => cache.token().await,
                true => cache.refresh().await,
            };
            let kinds = [
                ErrorKind::RateLimited,
                ErrorKind::Timeout,
                ErrorKind::Denied,
            ];
            if let Err(error) = result {
                assert!(
                    kinds.contains(&error.kind()),
                    "seed {seed}: {error:?} {lines:?}"
                );
            }
            assert!(
                now() - start <= s(31),
                "seed {seed}: {:?} {lines:?}",
                now() - start
            );
        }
        let (operations, calls) = (store.operations(), endpoint.calls());
        assert!(
            operations <= 600,
            "seed {seed}: {operations} operations, {lines:?}"
        );
        assert!(calls <= 3, "seed {seed}: {calls} token requests, {lines:?}");
    }
}

/// One of many tenants in one process.
#[derive(Clone)]
struct Tenant(usize, ScriptedProvider);

impl TokenProvider for Tenant {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        self.1.fetch(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.1.rate_limit()
    }
}

impl KeyedProvider for Tenant {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        let material = KeyMaterial::new("https://tenants.test/", "id", "secret");
        Ok(material.param("tenant", self.0.to_string()))
    }
}

/// The caches of one process, for these tenants.
fn process(tenants: usize, endpoint: &ScriptedProvider, store: &MemoryStore) -> Vec<TokenCache> {
    let rate_limit = RateLimit::new(5, s(60));
    let cache = |tenant| {
        let provider = SharedTokenProvider::new(Tenant(tenant, endpoint.clone()), store.clone());
        let layer = OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit.clone());
        layer.build().unwrap().cache().clone()
    };
    (0..tenants).map(cache).collect()
}

#[tokio::test(start_paused = true)]
async fn of_many_caches_with_a_full_window_none_starves() {
    for seed in 0..10 {
        fastrand::seed(seed);
        let (endpoint, store) = (ScriptedProvider::new().latency(ms(300)), MemoryStore::new());
        // Two processes share the store's window, and each has one of its own.
        let one = process(30, &endpoint, &store);
        let two = process(30, &endpoint, &store);
        let start = now();
        one.iter().chain(&two).for_each(drive);
        let served = |caches: &[TokenCache]| {
            caches
                .iter()
                .filter(|cache| cache.try_token().is_some())
                .count()
        };
        while served(&one) + served(&two) < 60 {
            sleep(s(1)).await;
            assert!(
                now() - start < s(8 * 60),
                "seed {seed}: {} {}",
                served(&one),
                served(&two)
            );
        }
        println!(
            "30 tenants in 2 processes, five a minute: {:?}",
            now() - start
        );
        assert_eq!(endpoint.calls(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_with_a_full_window_takes_the_tokens_that_lie_in_the_store() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    for tenant in 0..100 {
        let provider = SharedTokenProvider::new(Tenant(tenant, endpoint.clone()), store.clone());
        let layer = OfficeRndAuthLayer::builder(provider).rate_limit(RateLimit::unlimited());
        layer.build().unwrap().cache().token().await.unwrap();
    }
    // Each cache takes a place for a moment, before it looks into the store.
    let caches = process(100, &endpoint, &store);
    let start = now();
    for result in ask_all(&caches, 1).await {
        result.unwrap();
    }
    assert!(now() - start < s(1), "{:?}", now() - start);
    assert_eq!(endpoint.calls(), 100);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_line_of_its_process_is_served_when_its_turn_comes() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let rate_limit = RateLimit::new(1, s(20));
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new());
    let other = layer.rate_limit(rate_limit.clone()).build().unwrap();
    other.cache().token().await.unwrap();
    // The store has room, the process has none for 20 s.
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit);
    let cache = layer.build().unwrap().cache().clone();
    let start = now();
    cache.token().await.unwrap();
    let waited = now() - start;
    assert!(waited >= s(19) && waited < s(21), "{waited:?}");
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
async fn a_request_that_was_sent_is_not_cut_off_when_its_callers_time_is_up() {
    // Leased for some seconds, and then granted.
    let lines = [0; 7].map(|_| Line::Answer(Claimed::Leased(s(5))));
    let store = Script::new(lines.into_iter().chain([Line::Answer(Claimed::Granted)]));
    let endpoint = ScriptedProvider::new().latency(s(8));
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).acquire_timeout(s(6));
    let cache = layer.build().unwrap().cache().clone();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(endpoint.calls(), 1);
    sleep(s(9)).await;
    assert!(cache.try_token().is_some());
    assert_eq!(endpoint.calls(), 1);
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

/// A store that is slow to finish.
#[derive(Clone)]
struct SlowToFinish(MemoryStore);

impl TokenStore for SlowToFinish {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        self.0.claim(claim).await
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        sleep(s(2)).await;
        self.0.finish(finish).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_the_last_moment_is_not_lost_to_a_store_that_is_slow_to_finish() {
    let endpoint = ScriptedProvider::new().latency(s(9));
    let store = SlowToFinish(MemoryStore::new());
    let start = now();
    let first = pod(endpoint.clone(), &store);
    assert_eq!(header(&first.token().await.unwrap()), "Bearer scripted-1");
    assert_eq!(now() - start, s(11));
    // Its life counts from when its request was sent.
    let left = first.status().expires_in.unwrap();
    assert!(left <= s(3600 - 11) && left > s(3600 - 12), "{left:?}");
    let second = pod(endpoint.clone(), &store);
    assert_eq!(header(&second.token().await.unwrap()), "Bearer scripted-1");
    assert_eq!(endpoint.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_a_failure_that_the_store_learns_of() {
    let endpoint = ScriptedProvider::new().then(Step::Hang);
    let store = SlowToFinish(MemoryStore::new());
    let start = now();
    drive(&pod(endpoint.clone(), &store));
    sleep(s(12)).await;
    // The lease of 15 s was given up, and the failure holds others up for 1 s.
    pod(endpoint.clone(), &store).token().await.unwrap();
    let took = now() - start;
    assert!(took > s(13) && took < s(17), "{took:?}");
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_time_is_nearly_up_neither_blames_the_store_nor_sends_beside_a_leader() {
    for seed in 0..40 {
        fastrand::seed(seed);
        let store = Script::new([Line::Answer(Claimed::Leased(s(5)))]).latency(ms(15));
        let endpoint = ScriptedProvider::new();
        let provider = SharedTokenProvider::new(endpoint.clone(), store);
        let layer = OfficeRndAuthLayer::builder(provider.clone()).acquire_timeout(s(6));
        let cache = layer.build().unwrap().cache().clone();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "seed {seed}");
        let status = provider.status();
        assert_eq!((status.failures, status.direct), (0, 0), "seed {seed}");
        assert_eq!(endpoint.calls(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_of_the_fleet_that_is_free_too_late_is_not_waited_for() {
    let store = Script::new([Line::Answer(Claimed::RateLimited(ms(29_500)))]);
    let provider = SharedTokenProvider::new(ScriptedProvider::new(), store);
    let start = now();
    let error = provider.fetch(FetchContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(now() - start < s(1), "{:?}", now() - start);
}

/// Is slow to ask for a permit, or holds one and never connects.
#[derive(Clone)]
struct NeverSends {
    before: Duration,
    connecting: Duration,
}

impl TokenProvider for NeverSends {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        sleep(self.before).await;
        let permit = cx.permit().await?;
        sleep(self.connecting).await;
        permit.unsent();
        Err(Error::new(ErrorKind::Transport, "no connection"))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

impl KeyedProvider for NeverSends {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        ScriptedProvider::new().key_material().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_sent_nothing_before_its_deadline_leaves_no_lease_and_no_place() {
    // Its source is slow; or its connection fails after the deadline.
    for (before, connecting, ends) in [(s(60), s(0), s(4)), (s(0), s(8), s(8))] {
        let store = MemoryStore::new();
        let one_a_minute = || RateLimit::new(1, s(60));
        let slow = SharedTokenProvider::new(
            NeverSends { before, connecting },
            SlowToFinish(store.clone()),
        );
        let layer = OfficeRndAuthLayer::builder(slow).rate_limit(one_a_minute());
        let slow = layer.acquire_timeout(s(4)).build().unwrap().cache().clone();
        let start = now();
        slow.token().await.unwrap_err();
        // `finish` takes 2 s.
        tokio::time::sleep_until((start + ends + ms(2_100)).into()).await;
        let endpoint = ScriptedProvider::new();
        let next = SharedTokenProvider::new(endpoint.clone(), store);
        let layer = OfficeRndAuthLayer::builder(next).rate_limit(one_a_minute());
        let next = layer.build().unwrap().cache().clone();
        let start = now();
        next.token().await.unwrap();
        assert!(now() - start < s(1), "{:?}", now() - start);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_sent_nothing_is_no_failure_of_the_endpoint() {
    // A leader that never ends, credentials that cannot be read, a slow source.
    let leased = Script::new([Line::Answer(Claimed::Leased(s(5)))]);
    let unreadable = ReadOnce {
        endpoint: ScriptedProvider::new(),
        looks: AtomicUsize::new(1),
    };
    let slow = NeverSends {
        before: s(60),
        connecting: s(0),
    };
    for cache in [
        pod(ScriptedProvider::new(), &leased),
        pod(unreadable, &MemoryStore::new()),
        pod(slow.clone(), &MemoryStore::new()),
        TokenCache::new(slow),
    ] {
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        sleep(s(1)).await;
        let status = cache.status();
        assert_eq!((status.consecutive_failures, status.last_error), (0, None));
    }
}

/// A rate limit of one request, for two caches of one process.
fn of_one_process(
    provider: impl KeyedProvider,
    store: impl TokenStore,
    clock: &ManualClock,
) -> (TokenCache, TokenCache, ScriptedProvider) {
    let rate_limit = RateLimit::new(1, s(600));
    let shared = SharedTokenProvider::new(provider, store);
    let layer = OfficeRndAuthLayer::builder(shared).rate_limit(rate_limit.clone());
    let shared = layer.clock(clock.clone()).build().unwrap().cache().clone();
    let endpoint = ScriptedProvider::new();
    let layer = OfficeRndAuthLayer::builder(endpoint.clone()).rate_limit(rate_limit);
    let other = layer.clock(clock.clone()).build().unwrap().cache().clone();
    (shared, other, endpoint)
}

/// A store that takes 500 ms to answer, and then does so.
#[derive(Clone)]
struct Late {
    model: MemoryStore,
    /// Fails, or was stopped for 17 s by the wall clock once.
    fails: bool,
    clock: ManualClock,
    claims: Arc<AtomicUsize>,
}

impl TokenStore for Late {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        sleep(ms(500)).await;
        if self.fails {
            return Err(Error::new(ErrorKind::Store, "away"));
        }
        let claimed = self.model.claim(claim).await;
        if self.claims.fetch_add(1, Ordering::SeqCst) == 0 {
            self.clock.advance_wall(s(17));
        }
        claimed
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        self.model.finish(finish).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_in_line_is_kept_when_the_store_fails_and_when_the_process_stood_still() {
    for fails in [true, false] {
        let clock = ManualClock::new();
        let store = Late {
            model: MemoryStore::new(),
            fails,
            clock: clock.clone(),
            claims: Arc::default(),
        };
        let endpoint = ScriptedProvider::new();
        let (first, second, other) = of_one_process(endpoint.clone(), store, &clock);
        let asked = [first, second].map(|cache| {
            tokio::spawn(async move {
                let start = now();
                (cache.token().await.is_ok(), now() - start)
            })
        });
        let [first, second] = asked;
        let (served, took) = first.await.unwrap();
        assert!(served && took < s(3), "fails: {fails}, {took:?}");
        assert_eq!(endpoint.calls(), 1, "fails: {fails}");
        sleep(s(1)).await;
        assert_eq!(other.calls(), 0, "fails: {fails}");
        second.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_never_made_is_tried_again_soon_without_the_store_too() {
    #[derive(Clone, Default)]
    struct Unreachable(Arc<AtomicUsize>);
    impl TokenProvider for Unreachable {
        async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
            cx.permit().await?.unsent();
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(Error::new(ErrorKind::Transport, "no connection"))
        }

        fn rate_limit(&self) -> Option<RateLimit> {
            None
        }
    }
    impl KeyedProvider for Unreachable {
        async fn key_material(&self) -> Result<KeyMaterial, Error> {
            ScriptedProvider::new().key_material().await
        }
    }

    let (endpoint, store) = (Unreachable::default(), Script::default());
    store.away();
    drive(&pod(endpoint.clone(), &store));
    sleep(s(60)).await;
    // 5 s apart at most, where other failures are 30 s apart.
    let tries = endpoint.0.load(Ordering::SeqCst);
    assert!(tries >= 10, "{tries}");
}
