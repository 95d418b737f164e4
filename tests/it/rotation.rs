//! A new app takes the place of an old one while requests run.

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
use testkit::memory::{OfficeRnd, failures};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, service_fn};

use crate::support::{Stopwatch, ms, s};

/// The layer over the API, with a replay after a 401.
fn client(
    officernd: &OfficeRnd,
    url: &str,
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
    ServiceBuilder::new()
        .layer(OfficeRndAuthLayer::new(provider).with_retry())
        .service(service_fn(move |request| api.clone().api(request)))
}

#[tokio::test(start_paused = true)]
async fn an_app_is_replaced_without_a_failed_request() {
    let officernd = OfficeRnd::default();
    officernd.make_app("old");
    officernd.store_pair("old");
    let client = client(&officernd, "https://rotation.test/good-order");
    let requests = tokio::spawn(failures(client, s(10)));
    sleep(s(2)).await;
    officernd.make_app("new");
    officernd.store_pair("new");
    sleep(s(2)).await;
    officernd.delete_app("old");
    let failures = requests.await.unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    let token_requests = officernd.token_requests();
    assert!(token_requests <= 3, "{token_requests}");
}

#[tokio::test(start_paused = true)]
async fn an_app_deleted_too_early_fails_requests_for_at_most_5_s_more() {
    let officernd = OfficeRnd::default();
    officernd.make_app("old");
    officernd.store_pair("old");
    let client = client(&officernd, "https://rotation.test/bad-order");
    let requests = tokio::spawn(failures(client, s(30)));
    sleep(s(2)).await;
    officernd.delete_app("old");
    sleep(s(12)).await;
    officernd.make_app("new");
    officernd.store_pair("new");
    let failures = requests.await.unwrap();
    // The old token is gone, and nothing can replace it before the new pair is there.
    assert!(failures.iter().any(|&at| at > s(13)), "{failures:?}");
    let last = failures.last().unwrap();
    assert!(*last < s(14 + 5), "{last:?}");
    let token_requests = officernd.token_requests();
    assert!(token_requests <= 4, "{token_requests}");
}

/// Caches of apps with wrong secrets at one token URL, of which one is corrected after the other,
/// every 200 s. How long each stayed without a token.
async fn corrected_beside_broken_neighbors(url: &str, broken: usize) -> Vec<Duration> {
    let officernd = OfficeRnd::default();
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
            TokenCache::new(HttpTokenProvider::with_service(credentials, endpoint).unwrap())
        })
        .collect();
    for (app, cache) in caches.iter().enumerate() {
        officernd.make_app(&format!("app-{app}"));
        let cache = cache.clone();
        // Requests, but not in step with the others.
        tokio::spawn(async move {
            loop {
                let _ = cache.token().await;
                sleep(ms(1_500 + 37 * app as u64)).await;
            }
        });
    }
    // Five a minute: until then each has been refused.
    sleep(s(60 * (broken as u64 / 5 + 2))).await;
    let mut healed = Vec::new();
    for (app, cache) in caches.iter().enumerate().take(5) {
        assert!(cache.try_token().is_none());
        stored
            .lock()
            .unwrap()
            .insert(app, format!("app-{app}-secret"));
        let start = Stopwatch::start();
        while cache.token().await.is_err() && start.elapsed() < s(600) {
            sleep(ms(250)).await;
        }
        healed.push(start.elapsed());
        sleep(s(200)).await;
    }
    healed
}

#[tokio::test(start_paused = true)]
async fn a_corrected_secret_heals_within_5_s_beside_20_broken_neighbors() {
    for seed in 0..3 {
        fastrand::seed(seed);
        let url = format!("https://rotation.test/neighbors-{seed}");
        let healed = corrected_beside_broken_neighbors(&url, 21).await;
        let all = healed.iter().all(|&after| after <= ms(5_500));
        assert!(all, "{healed:?}");
    }
}
