//! A new app takes the place of an old one while requests run.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use officernd_auth::credentials::AppCredentials;
use officernd_auth::testing::MemoryStore;
use officernd_auth::{
    BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, SharedTokenProvider,
    TokenCache,
};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::{Stopwatch, ms, s};

/// OfficeRnD's apps and tokens, and the secret store of the company, all in
/// memory: a paused clock does not wait for sockets.
#[derive(Default)]
struct World {
    /// Secrets by client id.
    apps: BTreeMap<String, String>,
    /// The apps' tokens.
    tokens: BTreeSet<(String, String)>,
    token_requests: usize,
    /// What the credential source returns.
    stored: (String, String),
}

#[derive(Clone, Default)]
struct Scene(Arc<Mutex<World>>);

impl Scene {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn make_app(&self, id: &str) {
        self.world().apps.insert(id.into(), format!("{id}-secret"));
    }

    /// Its tokens go with it.
    fn delete_app(&self, id: &str) {
        let mut world = self.world();
        world.apps.remove(id);
        world.tokens.retain(|(app, _)| app != id);
    }

    fn store_pair(&self, id: &str) {
        self.world().stored = (id.into(), format!("{id}-secret"));
    }

    async fn token_endpoint(self, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        sleep(ms(50)).await;
        let Ok(body) = request.into_body().collect().await;
        let form: BTreeMap<_, _> = form_urlencoded::parse(&body.to_bytes())
            .into_owned()
            .collect();
        let mut world = self.world();
        world.token_requests += 1;
        let app = form["client_id"].clone();
        if world.apps.get(&app) != Some(&form["client_secret"]) {
            return answer(StatusCode::UNAUTHORIZED, r#"{"error":"invalid_client"}"#);
        }
        let token = format!("token-{}", world.token_requests);
        world.tokens.insert((app, token.clone()));
        let body = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
        answer(StatusCode::OK, &body)
    }

    async fn api(self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
        sleep(ms(20)).await;
        let header = request.headers()["authorization"].to_str().unwrap();
        let token = header.strip_prefix("Bearer ").unwrap();
        let known = self.world().tokens.iter().any(|(_, other)| other == token);
        let status = if known {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        Ok(answer(status, ""))
    }

    /// The layer over the API, with a replay after a 401.
    fn client(
        &self,
        url: &str,
        store: Option<MemoryStore>,
    ) -> impl Service<
        Request<Full<Bytes>>,
        Response = Response<Full<Bytes>>,
        Error = BoxError,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let (source, endpoint, api) = (self.clone(), self.clone(), self.clone());
        let credentials = ClientCredentials::from_source(move || {
            let (id, secret) = source.world().stored.clone();
            std::future::ready(Ok(AppCredentials::new(id, secret)))
        });
        let endpoint = service_fn(move |request| {
            let endpoint = endpoint.clone();
            async move { Ok::<_, Infallible>(endpoint.token_endpoint(request).await) }
        });
        let credentials = credentials.scope("officernd.api.read").token_url(url);
        let provider = HttpTokenProvider::with_service(credentials, endpoint).unwrap();
        let layer = match store {
            Some(store) => OfficeRndAuthLayer::new(SharedTokenProvider::new(provider, store)),
            None => OfficeRndAuthLayer::new(provider),
        };
        ServiceBuilder::new()
            .layer(layer.with_retry())
            .service(service_fn(move |request| api.clone().api(request)))
    }
}

fn answer(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    Response::builder().status(status).body(body).unwrap()
}

/// 200 requests a second for so long. When each of them failed.
async fn failures<S>(client: S, duration: Duration) -> Vec<Duration>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let start = Stopwatch::start();
    let mut requests = JoinSet::new();
    while start.elapsed() < duration {
        let client = client.clone();
        requests.spawn(async move {
            let sent_at = start.elapsed();
            let request =
                Request::get("https://app.officernd.com/api/v2/organizations/acme/members");
            let response = client.oneshot(request.body(Full::default()).unwrap()).await;
            let served = response.is_ok_and(|response| response.status().is_success());
            (!served).then_some(sent_at)
        });
        sleep(ms(5)).await;
    }
    requests.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn an_app_is_replaced_without_a_failed_request() {
    let scene = Scene::default();
    scene.make_app("old");
    scene.store_pair("old");
    let client = scene.client("https://rotation.test/good-order", None);
    let requests = tokio::spawn(failures(client, s(10)));
    sleep(s(2)).await;
    scene.make_app("new");
    scene.store_pair("new");
    sleep(s(2)).await;
    scene.delete_app("old");
    let failures = requests.await.unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    let token_requests = scene.world().token_requests;
    assert!(token_requests <= 3, "{token_requests}");
}

/// The old app is deleted 2 s after the start, the new pair arrives at 14 s.
/// Counts token requests.
async fn bad_order(url: &str, stores: &[Option<MemoryStore>]) -> usize {
    let scene = Scene::default();
    scene.make_app("old");
    scene.store_pair("old");
    let clients = stores.iter().map(|store| scene.client(url, store.clone()));
    let clients: Vec<_> = clients
        .map(|client| tokio::spawn(failures(client, s(30))))
        .collect();
    sleep(s(2)).await;
    scene.delete_app("old");
    sleep(s(12)).await;
    scene.make_app("new");
    scene.store_pair("new");
    for requests in clients {
        let failures = requests.await.unwrap();
        // The old token is gone, and nothing can replace it before the new pair is there.
        assert!(failures.iter().any(|&at| at > s(13)), "{failures:?}");
        let last = failures.last().unwrap();
        assert!(*last < s(14 + 5), "{last:?}");
    }
    scene.world().token_requests
}

#[tokio::test(start_paused = true)]
async fn an_app_deleted_too_early_fails_requests_for_at_most_5_s_more() {
    let token_requests = bad_order("https://rotation.test/bad-order", &[None]).await;
    assert!(token_requests <= 4, "{token_requests}");
}

#[tokio::test(start_paused = true)]
async fn the_same_behind_a_store_whichever_pod_was_refused() {
    let store = MemoryStore::new();
    let pods = [Some(store.clone()), Some(store)];
    let token_requests = bad_order("https://rotation.test/shared", &pods).await;
    assert!(token_requests <= 4, "{token_requests}");
}

/// Caches of apps with wrong secrets at one token URL, of which one is corrected after the other,
/// every 200 s. How long each stayed without a token.
async fn corrected_beside_broken_neighbors(
    url: &str,
    broken: usize,
    store: Option<MemoryStore>,
) -> Vec<Duration> {
    let scene = Scene::default();
    let stored: Arc<Mutex<BTreeMap<usize, String>>> = Arc::default();
    let caches: Vec<TokenCache> = (0..broken)
        .map(|app| {
            let (stored, endpoint) = (Arc::clone(&stored), scene.clone());
            let credentials = ClientCredentials::from_source(move || {
                let secret = stored.lock().unwrap().get(&app).cloned();
                let secret = secret.unwrap_or_else(|| "wrong".into());
                std::future::ready(Ok(AppCredentials::new(format!("app-{app}"), secret)))
            });
            let endpoint = service_fn(move |request| {
                let endpoint = endpoint.clone();
                async move { Ok::<_, Infallible>(endpoint.token_endpoint(request).await) }
            });
            let credentials = credentials.scope("officernd.api.read").token_url(url);
            let provider = HttpTokenProvider::with_service(credentials, endpoint).unwrap();
            match &store {
                Some(store) => TokenCache::new(SharedTokenProvider::new(provider, store.clone())),
                None => TokenCache::new(provider),
            }
        })
        .collect();
    for (app, cache) in caches.iter().enumerate() {
        scene.make_app(&format!("app-{app}"));
        let cache = cache.clone();
        // Requests, but not in step with the others.
        tokio::spawn(async move {
            loop {
                let _ = cache.token().await;
                sleep(ms(350 + 13 * app as u64)).await;
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
        while cache.try_token().is_none() && start.elapsed() < s(600) {
            sleep(ms(100)).await;
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
        for store in [None, Some(MemoryStore::new())] {
            let shared = store.is_some();
            let url = format!("https://rotation.test/neighbors-{seed}-{shared}");
            let healed = corrected_beside_broken_neighbors(&url, 21, store).await;
            let all = healed.iter().all(|&after| after <= ms(5_500));
            assert!(all, "shared: {shared}: {healed:?}");
        }
    }
}
