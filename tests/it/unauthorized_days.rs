//! Simulated days of 401s: tokens that die early, paths that are forbidden, tokens that are
//! revoked, on tokio's paused clock.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use officernd_auth::{AccessToken, BoxError, OfficeRndAuthLayer, RetryUnauthorized, provider_fn};
use tower::retry::RetryLayer;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Stopwatch, s};

const DAY: Duration = s(24 * 3600);
const HALF_DAY: Duration = s(12 * 3600);

/// What the API knows of its tokens.
#[derive(Default)]
struct Api {
    /// How long each token lives, whatever its `expires_in` says.
    dies_after: Option<Duration>,
    /// The newest token, and when it was first used.
    newest: (u64, Option<Stopwatch>),
    /// Tokens up to this one are revoked.
    revoked: u64,
}

impl Api {
    fn accepts(&mut self, request: &Request<()>) -> bool {
        let header = request.headers()["authorization"].to_str().unwrap();
        let number = header.strip_prefix("Bearer token-").unwrap();
        let number = number.parse().unwrap();
        if number > self.newest.0 {
            self.newest = (number, None);
        }
        let used = self.newest.1.get_or_insert_with(Stopwatch::start).elapsed();
        number > self.revoked
            && number == self.newest.0
            && self.dies_after.is_none_or(|life| used < life)
            && request.uri().path() != "/forbidden"
    }
}

/// A cache whose tokens say 3,600 s, below a client.
struct World {
    api: Rc<RefCell<Api>>,
    minted: Arc<AtomicU64>,
    layer: OfficeRndAuthLayer,
    start: Stopwatch,
}

impl World {
    fn new(dies_after: Option<Duration>) -> Self {
        let minted = Arc::new(AtomicU64::new(0));
        let count = minted.clone();
        let provider = provider_fn(move || {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            std::future::ready(AccessToken::bearer(format!("token-{number}"), s(3600)))
        });
        Self {
            api: Rc::new(RefCell::new(Api {
                dies_after,
                ..Api::default()
            })),
            minted,
            layer: OfficeRndAuthLayer::new(provider),
            start: Stopwatch::start(),
        }
    }

    fn client(
        &self,
    ) -> impl Service<
        Request<()>,
        Response = Response<()>,
        Error = BoxError,
        Future: Future<Output = Result<Response<()>, BoxError>>,
    > + Clone
    + use<> {
        let api = self.api.clone();
        let inner = service_fn(move |request: Request<()>| {
            let accepted = api.borrow_mut().accepts(&request);
            let mut response = Response::new(());
            if !accepted {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            std::future::ready(Ok::<_, Infallible>(response))
        });
        self.layer.layer(inner)
    }

    fn revoke(&self) {
        let mut api = self.api.borrow_mut();
        api.revoked = api.newest.0;
    }

    fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }
}

fn request(path: &str) -> Request<()> {
    let url = format!("https://app.officernd.com{path}");
    Request::get(url).body(()).unwrap()
}

async fn succeeds<S>(client: &mut S, path: &str) -> bool
where
    S: Service<Request<()>, Response = Response<()>, Error = BoxError>,
{
    let response = client.ready().await.unwrap().call(request(path)).await;
    response.unwrap().status().is_success()
}

#[tokio::test(start_paused = true)]
async fn tokens_that_die_early_fail_the_requests_of_one_second_each_and_none_that_is_replayed() {
    for minutes in [5, 15, 30] {
        let (world, replays) = (
            World::new(Some(s(60 * minutes))),
            World::new(Some(s(60 * minutes))),
        );
        let retry = RetryLayer::new(RetryUnauthorized::new());
        let (mut client, mut replaying) = (world.client(), retry.layer(replays.client()));
        let mut failed = 0;
        while world.start.elapsed() < HALF_DAY {
            let at = world.start.elapsed();
            failed += u64::from(!succeeds(&mut client, "/").await);
            assert!(succeeds(&mut replaying, "/").await, "{at:?}, {minutes} min");
            tokio::time::sleep(s(1)).await;
        }
        let deaths = HALF_DAY.as_secs() / (60 * minutes);
        assert!(failed <= deaths, "{failed} of 43,200, after {minutes} min");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_path_costs_at_most_300_token_requests_a_day_however_often_it_is_asked() {
    for every in [5, 60, 120, 150, 200, 289, 291, 300, 600] {
        let world = World::new(None);
        let mut client = world.client();
        while world.start.elapsed() < DAY {
            assert!(succeeds(&mut client, "/").await);
            assert!(!succeeds(&mut client, "/forbidden").await);
            tokio::time::sleep(s(every)).await;
        }
        let minted = world.minted();
        assert!(minted <= 300, "{minted}, asked each {every} s");
    }
}

/// Revokes a token 30 times, half an hour apart and more. The longest time to the next success,
/// with one request a second, of which each `forbidden_each`th is forbidden.
async fn longest_heal(world: &World, forbidden_each: Option<u64>) -> Duration {
    let mut client = world.client();
    let mut longest = s(0);
    for nth in 0..30 {
        let revoked_at = world.start.elapsed() + s(1800 + 37 * nth);
        let mut revoked = false;
        for asked in 1.. {
            let now = world.start.elapsed();
            if !revoked && now >= revoked_at {
                revoked = true;
                world.revoke();
            }
            if forbidden_each.is_some_and(|each| asked % each == 0) {
                assert!(!succeeds(&mut client, "/forbidden").await);
            } else if succeeds(&mut client, "/").await && revoked {
                longest = longest.max(now - revoked_at);
                break;
            }
            tokio::time::sleep(s(1)).await;
        }
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_revocation_heals_within_a_second_and_beside_a_forbidden_path_within_ten_minutes() {
    for (forbidden_each, bound) in [(None, s(1)), (Some(5), s(602))] {
        let longest = longest_heal(&World::new(None), forbidden_each).await;
        assert!(longest <= bound, "{longest:?}, {forbidden_each:?}");
    }
}
