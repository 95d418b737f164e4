//! OfficeRnD in memory, for tests with a paused clock, which does not wait for sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt as _};

/// The URL of an API request.
pub const LOCATIONS: &str = "https://app.officernd.com/api/v2/organizations/acme/locations";

type HttpRequest = Request<Full<Bytes>>;
type HttpResponse = Response<Full<Bytes>>;

/// OfficeRnD's apps and tokens, and a company's secret store. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OfficeRnd(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    /// Secrets by client id.
    apps: BTreeMap<String, String>,
    /// Client ids and their tokens.
    tokens: BTreeSet<(String, String)>,
    token_requests: usize,
    /// The client id and secret in the company's secret store.
    stored: (String, String),
}

impl OfficeRnd {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Makes an app, whose secret is its id and `-secret`.
    pub fn make_app(&self, id: &str) {
        self.world().apps.insert(id.into(), format!("{id}-secret"));
    }

    /// Deletes an app, and its tokens.
    pub fn delete_app(&self, id: &str) {
        let mut world = self.world();
        world.apps.remove(id);
        world.tokens.retain(|(app, _)| app != id);
    }

    /// Puts the client id and secret of an app into the company's secret store.
    pub fn store_pair(&self, id: &str) {
        self.world().stored = (id.into(), format!("{id}-secret"));
    }

    /// Returns the client id and secret in the company's secret store.
    pub fn stored_pair(&self) -> (String, String) {
        self.world().stored.clone()
    }

    /// Returns how many token requests have arrived.
    pub fn token_requests(&self) -> usize {
        self.world().token_requests
    }

    /// Answers a token request after 50 ms.
    pub async fn token_endpoint(self, request: HttpRequest) -> Result<HttpResponse, Infallible> {
        sleep(Duration::from_millis(50)).await;
        let body = request.into_body().collect().await?.to_bytes();
        let form: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
        let mut world = self.world();
        world.token_requests += 1;
        let app = form["client_id"].clone();
        if world.apps.get(&app) != Some(&form["client_secret"]) {
            let refused = r#"{"error":"invalid_client"}"#;
            return Ok(answer(StatusCode::UNAUTHORIZED, refused));
        }
        let token = format!("token-{}", world.token_requests);
        world.tokens.insert((app, token.clone()));
        let body = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
        Ok(answer(StatusCode::OK, &body))
    }

    /// Answers an API request after 20 ms: 200, or 401 for an unknown token.
    pub async fn api(self, request: HttpRequest) -> Result<HttpResponse, Infallible> {
        sleep(Duration::from_millis(20)).await;
        let header = request.headers()["authorization"].to_str().unwrap();
        let token = header.strip_prefix("Bearer ").unwrap();
        let is_valid = self.world().tokens.iter().any(|(_, other)| other == token);
        let status = match is_valid {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        };
        Ok(answer(status, ""))
    }
}

fn answer(status: StatusCode, body: &str) -> HttpResponse {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    Response::builder().status(status).body(body).unwrap()
}

/// Sends 200 API requests a second for `duration`. Returns when each one that failed was sent.
#[expect(
    clippy::disallowed_methods,
    reason = "a test reads tokio's clock directly"
)]
pub async fn failures<S>(client: S, duration: Duration) -> Vec<Duration>
where
    S: Service<HttpRequest, Response = HttpResponse> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let start = Instant::now();
    let mut requests = JoinSet::new();
    while start.elapsed() < duration {
        let client = client.clone();
        requests.spawn(async move {
            let sent_at = start.elapsed();
            let request = Request::get(LOCATIONS).body(Full::default()).unwrap();
            let response = client.oneshot(request).await;
            let is_served = response.is_ok_and(|response| response.status().is_success());
            (!is_served).then_some(sent_at)
        });
        sleep(Duration::from_millis(5)).await;
    }
    requests.join_all().await.into_iter().flatten().collect()
}
