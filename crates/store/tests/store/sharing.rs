//! The shared store from above, over the model of one: no real I/O, the clock
//! paused. tests/fleet has the real ones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use officernd_auth::provider::Cause;
use officernd_auth::provider::{KeyMaterial, KeyedProvider};
use officernd_auth::testing::{ManualClock, ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, TokenCache, TokenProvider,
};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::{MemoryStore, check_store};
use officernd_auth_store::{Claim, Claimed, Finish, TokenStore};
use tokio::sync::Notify;
use tokio::time::{advance, sleep};

use crate::support::now;

const S: fn(u64) -> Duration = Duration::from_secs;

type Shared = SharedTokenProvider<ScriptedProvider>;

fn pod<S>(endpoint: &ScriptedProvider, store: &S) -> (Shared, TokenCache)
where
    S: TokenStore + Clone,
{
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    (provider.clone(), TokenCache::new(provider))
}

async fn header(cache: &TokenCache) -> String {
    let token = cache.token().await.unwrap();
    token.header_value().to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_model_keeps_the_promises() {
    check_store(&MemoryStore::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_a_rule_is_found_out() {
    let store = Meddler::new(|entry| entry.push(0));
    let violation = check_store(&store).await.unwrap_err();
    assert!(
        violation.to_string().contains("byte for byte"),
        "{violation}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_a_sibling_has_the_life_that_is_left_and_no_more() {
    let (endpoint, store) = (ScriptedProvider::new().latency(S(5)), MemoryStore::new());
    let (_, leader) = pod(&endpoint, &store);
    let (provider, waiter) = pod(&endpoint, &store);
    let lead = tokio::spawn({
        let leader = leader.clone();
        async move { leader.token().await }
    });
    sleep(Duration::from_millis(10)).await;
    let start = now();
    waiter.token().await.unwrap();
    assert!((now() - start) < S(6), "{:?}", (now() - start));
    lead.await.unwrap().unwrap();
    assert_eq!(endpoint.calls(), 1);
    // Sent at 0, answered at 5, taken soon after: 3,600 s from when it was sent.
    let left = |cache: &TokenCache| cache.status().expires_in.unwrap();
    assert!(left(&leader) <= S(3595) && left(&leader) > S(3593));
    assert!(left(&waiter) <= left(&leader) && left(&waiter) > S(3592));
    assert_eq!(provider.status().taken, 1);
    // Requests really sent, by whom.
    assert_eq!(leader.status().token_requests, 1);
    assert_eq!(waiter.status().token_requests, 0);

    advance(S(1800)).await;
    let (_, late) = pod(&endpoint, &store);
    late.token().await.unwrap();
    assert!(left(&late) <= left(&leader));
    assert!(left(&late) > S(1790));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_makes_no_token_live_longer() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    pod(&endpoint, &store).1.token().await.unwrap();
    advance(S(1800)).await;
    let clock = ManualClock::new();
    clock.rewind_wall(S(7200));
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).clock(clock).build();
    let behind = layer.unwrap().cache().clone();
    behind.token().await.unwrap();
    let left = behind.status().expires_in.unwrap();
    assert!(left <= S(1800) && left > S(1790), "{left:?}");
    assert_eq!(endpoint.calls(), 1);
    // By a clock that is ahead it is long dead: a new one.
    let clock = ManualClock::new();
    clock.advance_wall(S(7200));
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).clock(clock).build();
    layer.unwrap().cache().token().await.unwrap();
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_taken_and_its_successor_is() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let pods: Vec<TokenCache> = (0..3).map(|_| pod(&endpoint, &store).1).collect();
    for pod in &pods {
        assert_eq!(header(pod).await, "Bearer scripted-1");
    }
    // A younger one is not replaced because of a 401.
    sleep(S(60)).await;
    for pod in &pods {
        pod.reject(&pod.token().await.unwrap());
        sleep(S(2)).await;
        assert_eq!(header(pod).await, "Bearer scripted-2");
    }
    assert_eq!(endpoint.causes(), [Cause::Cold, Cause::Rejected]);
    pods[0].refresh().await.unwrap();
    pods[1].refresh().await.unwrap();
    assert_eq!(header(&pods[1]).await, "Bearer scripted-3");
    assert_eq!(endpoint.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_one_by_one_do_not_replace_a_young_token_each() {
    // A missing scope: every token is answered 401.
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let mut pods = Vec::new();
    for _ in 0..10 {
        let (_, pod) = pod(&endpoint, &store);
        pod.reject(&pod.token().await.unwrap());
        sleep(S(5)).await;
        // None is without a token for it.
        assert!(pod.try_token().is_some());
        pods.push(pod);
    }
    assert_eq!(endpoint.calls(), 1);
    assert_eq!(pods[9].status().consecutive_failures, 0);
    // A minute old, it is replaced, once for all.
    sleep(S(20)).await;
    for pod in &pods {
        pod.token().await.unwrap();
        sleep(S(1)).await;
    }
    assert_eq!(endpoint.calls(), 2);
    assert_eq!(header(&pods[9]).await, "Bearer scripted-2");
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_with_another_secret_or_for_other_scopes_is_not_seen() {
    struct With(KeyMaterial, ScriptedProvider);
    impl TokenProvider for With {
        async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
            self.1.fetch(cx).await
        }

        fn rate_limit(&self) -> Option<RateLimit> {
            self.1.rate_limit()
        }
    }
    impl KeyedProvider for With {
        async fn key_material(&self) -> Result<KeyMaterial, Error> {
            Ok(self.0.clone())
        }
    }

    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let base = || KeyMaterial::new("e", "c", "secret");
    let all = [
        base(),
        KeyMaterial::new("e", "c", "rotated"),
        base().scope("a"),
        base().param("tenant", "b"),
    ];
    for (at, material) in all.into_iter().enumerate() {
        let provider = SharedTokenProvider::new(With(material, endpoint.clone()), store.clone());
        TokenCache::new(provider).token().await.unwrap();
        assert_eq!(endpoint.calls(), at + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn tampered_truncated_swapped_and_replayed_entries_are_misses() {
    let meddlers: [fn(&mut Vec<u8>); 5] = [
        |entry| entry[40] ^= 1,
        |entry| entry.truncate(20),
        |entry| entry.clear(),
        |entry| entry.extend([0; 70_000]),
        |entry| *entry = b"{\"access_token\":\"evil\"}".to_vec(),
    ];
    for meddle in meddlers {
        let (endpoint, store) = (ScriptedProvider::new(), Meddler::new(meddle));
        let (provider, one) = pod(&endpoint, &store);
        one.token().await.unwrap();
        pod(&endpoint, &store).1.token().await.unwrap();
        assert_eq!(endpoint.calls(), 2);
        // A miss, not a failure.
        assert!(provider.status().available);
    }

    // Under the name of another entry: the failure's, the token's.
    let (endpoint, model) = (ScriptedProvider::new(), MemoryStore::new());
    pod(&endpoint, &model).1.token().await.unwrap();
    let sealed = model.entries().remove(0);
    let swapped = Meddler::over(MemoryStore::new(), {
        let sealed = sealed.clone();
        move |entry| *entry = sealed.clone()
    });
    let other = ScriptedProvider::new()
        .then(Step::Fail(ErrorKind::Transport))
        .then(Step::Fail(ErrorKind::Transport));
    let (_, cache) = pod(&other, &swapped);
    assert!(cache.token().await.is_err());
    sleep(S(2)).await;
    cache.refresh().await.unwrap();

    // An hour later the old entry is put back, with a new life: by the
    // date under the seal it is dead.
    let replayed = Meddler::over(MemoryStore::new(), move |entry| *entry = sealed.clone());
    let clock = ManualClock::new();
    clock.advance(S(3600));
    let endpoint = ScriptedProvider::new();
    for _ in 0..2 {
        let provider = SharedTokenProvider::new(endpoint.clone(), replayed.clone());
        let layer = OfficeRndAuthLayer::builder(provider).clock(clock.clone());
        layer.build().unwrap().cache().token().await.unwrap();
    }
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_and_over_in_time() {
    let store = MemoryStore::new();
    let endpoint = ScriptedProvider::new().then(Step::Fail(ErrorKind::InvalidClient));
    for _ in 0..5 {
        let (_, cache) = pod(&endpoint, &store);
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidClient);
    }
    assert_eq!(endpoint.calls(), 1);
    advance(S(61)).await;
    // The failure's date is the wall clock's, which no test can pause.
    let clock = ManualClock::new();
    clock.advance(S(61));
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).clock(clock).build();
    layer.unwrap().cache().token().await.unwrap();
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_is_short_for_a_clock_that_is_behind_too() {
    let store = MemoryStore::new();
    let busy = Error::new(ErrorKind::RateLimited, "busy").with_retry_after(S(1));
    let endpoint = ScriptedProvider::new().then(Step::Error(busy));
    pod(&endpoint, &store).1.token().await.unwrap_err();
    let clock = ManualClock::new();
    clock.rewind_wall(S(600));
    let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).clock(clock).build();
    let error = layer.unwrap().cache().token().await.unwrap_err();
    assert!(error.retry_after().unwrap() <= S(1), "{error:?}");
    assert_eq!(endpoint.calls(), 1);
}

/// When the first and the last of these pods had a result, and how many failed.
async fn ask_at_once(pods: &[TokenCache]) -> (Duration, usize) {
    let mut asked = tokio::task::JoinSet::new();
    for pod in pods {
        let pod = pod.clone();
        asked.spawn(async move { (pod.token().await.is_err(), now()) });
    }
    let results = asked.join_all().await;
    let ends = results.iter().map(|(_, at)| *at);
    let spread = ends.clone().max().unwrap() - ends.min().unwrap();
    (spread, results.iter().filter(|(failed, _)| *failed).count())
}

#[tokio::test(start_paused = true)]
async fn the_last_pod_knows_a_token_or_a_failure_within_a_second_of_the_first() {
    for (latency, fails) in [(300, false), (3000, false), (300, true), (3000, true)] {
        let store = MemoryStore::new();
        let endpoint = ScriptedProvider::new().latency(Duration::from_millis(latency));
        if fails {
            endpoint.push(Step::Fail(ErrorKind::Denied));
        }
        let pods: Vec<_> = (0..200).map(|_| pod(&endpoint, &store).1).collect();
        let (spread, failed) = ask_at_once(&pods).await;
        assert!(spread <= S(1), "{latency} ms: {spread:?}");
        assert_eq!(failed, if fails { 200 } else { 0 });
        assert_eq!(endpoint.calls(), 1);
    }
}

/// Answers when told to.
struct Gated(ScriptedProvider, Arc<Notify>);

impl TokenProvider for Gated {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let token = self.0.fetch(cx).await;
        self.1.notified().await;
        token
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.0.rate_limit()
    }
}

impl KeyedProvider for Gated {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        self.0.key_material().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_past_its_lease_overwrites_nothing() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let (clock, gate) = (ManualClock::new(), Arc::new(Notify::new()));
    let stopped = Gated(endpoint.clone(), Arc::clone(&gate));
    let provider = SharedTokenProvider::new(stopped, store.clone());
    let layer = OfficeRndAuthLayer::builder(provider).clock(clock.clone());
    let stopped = layer.build().unwrap().cache().clone();
    let late = tokio::spawn(async move { stopped.token().await });
    sleep(S(1)).await;
    // Its process is stopped, and with it its clock. The next takes over.
    sleep(S(16)).await;
    assert_eq!(header(&pod(&endpoint, &store).1).await, "Bearer scripted-2");
    // The monotonic clock of a machine that was suspended has not moved.
    clock.advance_wall(S(17));
    gate.notify_one();
    late.await.unwrap().unwrap();
    assert_eq!(header(&pod(&endpoint, &store).1).await, "Bearer scripted-2");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_send_takes_no_place_from_the_fleet_nor_from_the_process() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let one = || RateLimit::new(1, S(60));
    let process = |rate_limit: &RateLimit| {
        let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
        let layer = OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit.clone());
        layer.build().unwrap().cache().clone()
    };
    let elsewhere = |rate_limit: &RateLimit| {
        let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new());
        let layer = layer.rate_limit(rate_limit.clone()).build();
        layer.unwrap().cache().clone()
    };
    // The process has spent its one request, the fleet has not.
    let (spent, fresh) = (one(), one());
    elsewhere(&spent).token().await.unwrap();
    let error = process(&spent).token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    let start = now();
    process(&fresh).token().await.unwrap();
    assert!((now() - start) < S(1), "{:?}", now() - start);

    // The fleet has spent it, another process has not.
    let other = one();
    let cache = process(&other);
    cache.token().await.unwrap();
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(endpoint.calls(), 1);
    elsewhere(&other).token().await.unwrap();
    assert!((now() - start) < S(1), "{:?}", now() - start);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_sibling_by_hand_waits_no_longer_than_the_deadline() {
    let store = Meddler::new(|_| ());
    // By a holder that renews it for ever.
    *store.leased.lock().unwrap() = true;
    let (provider, _) = pod(&ScriptedProvider::new(), &store);
    let start = now();
    let error = provider.fetch(FetchContext::default()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
    assert!((now() - start) <= S(30));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_waits_for_its_rate_limit_under_one_lease() {
    let store = MemoryStore::new();
    let endpoint = ScriptedProvider::new();
    let wide = || RateLimit::new(1, S(20));
    let pods: Vec<TokenCache> = (0..4)
        .map(|_| {
            let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
            let layer = OfficeRndAuthLayer::builder(provider).rate_limit(wide());
            layer.build().unwrap().cache().clone()
        })
        .collect();
    for pod in &pods {
        pod.token().await.unwrap();
    }
    // The one request of these 20 s is spent, though not by this pod: it waits
    // longer than a lease lasts, and no other process takes over.
    let start = now();
    let asked: Vec<_> = pods[1..]
        .iter()
        .map(|pod| {
            let pod = pod.clone();
            tokio::spawn(async move { pod.refresh().await })
        })
        .collect();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    assert!((now() - start) >= S(20) && (now() - start) < S(22));
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_three_seconds_once_in_ten() {
    let (endpoint, store) = (ScriptedProvider::new(), Meddler::new(|_| ()));
    let (provider, cache) = pod(&endpoint, &store);
    store.hang(true);
    let start = now();
    cache.token().await.unwrap();
    assert_eq!((now() - start), S(3));
    assert!(!provider.status().available);
    cache.refresh().await.unwrap();
    assert_eq!((now() - start), S(3));
    assert_eq!(provider.status().direct, 2);
    store.hang(false);
    sleep(S(10)).await;
    cache.refresh().await.unwrap();
    assert!(provider.status().available);
    assert_eq!(
        (provider.status().fetched, provider.status().failures),
        (1, 1)
    );
}

#[tokio::test]
async fn nothing_that_is_shown_shows_a_secret() {
    let credentials = ClientCredentials::new("id", "hunter2")
        .scope("officernd.api.read")
        .form_param("password", "hunter2");
    let store = MemoryStore::new();
    let http = HttpTokenProvider::new(credentials.clone()).unwrap();
    let material = http.key_material().await.unwrap();
    let shared = SharedTokenProvider::new(http, store.clone());
    let status = shared.status();
    let shown = format!("{shared:?} {shared:#?} {material:?} {status:?} {credentials:?} {store:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

type Meddle = dyn Fn(&mut Vec<u8>) + Send + Sync;

/// The model, behind a layer that changes what is loaded.
#[derive(Clone)]
pub(crate) struct Meddler {
    model: MemoryStore,
    meddle: Arc<Meddle>,
    hangs: Arc<Mutex<bool>>,
    leased: Arc<Mutex<bool>>,
}

impl Meddler {
    fn new(meddle: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Self {
        Self::over(MemoryStore::new(), meddle)
    }

    pub(crate) fn over(
        model: MemoryStore,
        meddle: impl Fn(&mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            model,
            meddle: Arc::new(meddle),
            hangs: Arc::default(),
            leased: Arc::default(),
        }
    }

    pub(crate) fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
    }
}

impl TokenStore for Meddler {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        if *self.leased.lock().unwrap() {
            return Ok(Claimed::Leased(claim.limits.lease));
        }
        let mut claimed = self.model.claim(claim).await?;
        if let Claimed::Entry(entry) = &mut claimed {
            (self.meddle)(&mut entry.sealed);
        }
        Ok(claimed)
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        self.model.finish(finish).await
    }
}
