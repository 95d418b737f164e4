//! Apps that are replaced, and secrets that are corrected, behind a store.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use officernd_auth::credentials::AppCredentials;
use officernd_auth::{
    BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, TokenCache,
};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::MemoryStore;
use testkit::memory::{OfficeRnd, failures};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, service_fn};

use crate::support::{ms, now, s};

/// Makes a client of the API that replays a request after a 401.
fn client(
    officernd: &OfficeRnd,
    url: &str,
    store: MemoryStore,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    let (source, endpoint, api) = (officernd.clone(), officernd.clone(), officernd.clone());
    let credentials = ClientCredentials::from_source(move || {
        let (id, secret) = source.stored_pair();
        ready(Ok(AppCredentials::new(id, secret)))
    });
    let endpoint = service_fn(move |request| endpoint.clone().token_endpoint(request));
    let credentials = credentials.scope("officernd.api.read").token_url(url);
    let provider = HttpTokenProvider::with_service(credentials, endpoint).unwrap();
    let provider = SharedTokenProvider::new(provider, store);
    ServiceBuilder::new()
        .layer(OfficeRndAuthLayer::new(provider).with_retry())
        .service(service_fn(move |request| api.clone().api(request)))
}

#[tokio::test(start_paused = true)]
async fn after_an_app_is_deleted_too_early_requests_succeed_within_5_s_of_new_credentials() {
    let officernd = OfficeRnd::default();
    officernd.make_app("old");
    officernd.store_pair("old");
    let store = MemoryStore::new();
    let pods = [(); 2].map(|()| client(&officernd, "https://rotation.test/shared", store.clone()));
    let pods = pods.map(|pod| tokio::spawn(failures(pod, s(30))));
    sleep(s(2)).await;
    officernd.delete_app("old");
    sleep(s(12)).await;
    officernd.make_app("new");
    officernd.store_pair("new");
    for requests in pods {
        let failures = requests.await.unwrap();
        // The old token is revoked, and the new credentials arrive at 14 s.
        assert!(failures.iter().any(|&at| at > s(13)), "{failures:?}");
        let last = failures.last().unwrap();
        assert!(*last < s(14 + 5), "{last:?}");
    }
    let token_requests = officernd.token_requests();
    assert!(token_requests <= 4, "{token_requests}");
}

/// Makes caches with wrong secrets at one token URL, and corrects one every 200 s. Returns how long each of them
/// then stayed without a token.
async fn corrected_beside_wrong_secrets(url: &str, broken: usize) -> Vec<Duration> {
    let officernd = OfficeRnd::default();
    let store = MemoryStore::new();
    let stored: Arc<Mutex<BTreeMap<usize, String>>> = Arc::default();
    let caches: Vec<TokenCache> = (0..broken)
        .map(|app| {
            let (stored, endpoint) = (Arc::clone(&stored), officernd.clone());
            let credentials = ClientCredentials::from_source(move || {
                let secret = stored.lock().unwrap().get(&app).cloned();
                let secret = secret.unwrap_or_else(|| "wrong".into());
                ready(Ok(AppCredentials::new(format!("app-{app}"), secret)))
            });
            let endpoint = service_fn(move |request| endpoint.clone().token_endpoint(request));
            let credentials = credentials.scope("officernd.api.read").token_url(url);
            let provider = HttpTokenProvider::with_service(credentials, endpoint).unwrap();
            TokenCache::new(SharedTokenProvider::new(provider, store.clone()))
        })
        .collect();
    for (app, cache) in caches.iter().enumerate() {
        officernd.make_app(&format!("app-{app}"));
        let cache = cache.clone();
        // Each cache sends requests at a different interval.
        tokio::spawn(async move {
            loop {
                let _ = cache.token().await;
                sleep(ms(350 + 13 * app as u64)).await;
            }
        });
    }
    // At five requests a minute, each cache has been refused by then.
    sleep(s(60 * (broken as u64 / 5 + 2))).await;
    let mut healed = Vec::new();
    for (app, cache) in caches.iter().enumerate().take(5) {
        assert!(cache.try_token().is_none());
        stored
            .lock()
            .unwrap()
            .insert(app, format!("app-{app}-secret"));
        let start = now();
        while cache.try_token().is_none() && (now() - start) < s(600) {
            sleep(ms(100)).await;
        }
        healed.push(now() - start);
        sleep(s(200)).await;
    }
    healed
}

#[tokio::test(start_paused = true)]
async fn a_corrected_secret_is_used_within_5_s_beside_20_wrong_ones() {
    for seed in 0..3 {
        fastrand::seed(seed);
        let url = format!("https://rotation.test/neighbors-{seed}");
        let healed = corrected_beside_wrong_secrets(&url, 21).await;
        let all = healed.iter().all(|&after| after <= ms(5_500));
        assert!(all, "{healed:?}");
    }
}
