//! Several organizations behind one layer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use officernd_auth::organizations::{OrganizationResolver, OrganizationsLayer, resolver_fn};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    AccessToken, BoxError, Error, ErrorKind, OfficeRndAuthLayer, StaticToken, provider_fn,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::s;

/// Every slug of lower-case letters has credentials: its token is its name.
fn by_name() -> (impl OrganizationResolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolver = resolver_fn(move |slug: String| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            let known = slug.bytes().all(|byte| byte.is_ascii_lowercase());
            Ok(known.then(|| {
                OfficeRndAuthLayer::new(provider_fn(move || {
                    let token = format!("of-{slug}");
                    async move { AccessToken::bearer(token, Duration::from_secs(3600)) }
                }))
            }))
        }
    });
    (resolver, asked)
}

/// What reached the inner service: the token, or none.
pub(crate) async fn send(layer: &OrganizationsLayer, path: &str) -> Result<String, BoxError> {
    send_to(layer, &format!("https://app.officernd.com{path}")).await
}

pub(crate) async fn send_to(layer: &OrganizationsLayer, url: &str) -> Result<String, BoxError> {
    let echo = service_fn(|request: Request<()>| async move {
        let value = request.headers().get("authorization");
        let token = value.map_or("none", |value| value.to_str().unwrap());
        Ok::<_, Infallible>(Response::new(
            token.trim_start_matches("Bearer ").to_owned(),
        ))
    });
    let request = Request::get(url);
    let response = layer.layer(echo).oneshot(request.body(())?).await?;
    Ok(response.into_body())
}

/// How many organizations the layer keeps, unknown ones included.
fn kept(layer: &OrganizationsLayer) -> usize {
    let shown = format!("{layer:?}");
    let (_, count) = shown.split_once("organizations: ").unwrap();
    count.split_once(',').unwrap().0.parse().unwrap()
}

pub(crate) fn kind(result: Result<String, BoxError>) -> ErrorKind {
    Error::find(&result.unwrap_err()).unwrap().kind()
}

#[tokio::test(start_paused = true)]
async fn the_slug_of_the_path_picks_the_token() {
    let layer = OrganizationsLayer::new(by_name().0);
    assert!(layer.statuses().is_empty());
    for slug in ["acme", "globex", "acme"] {
        for version in ["v1", "v2"] {
            let path = format!("/api/{version}/organizations/{slug}/locations?limit=1");
            assert_eq!(send(&layer, &path).await.unwrap(), format!("of-{slug}"));
        }
    }
    assert_eq!(layer.statuses().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_map_is_a_resolver() {
    let acme = OfficeRndAuthLayer::new(StaticToken::new("of-acme").unwrap());
    let layer = OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]));
    let sent = send(&layer, "/api/v2/organizations/acme/x").await;
    assert_eq!(sent.unwrap(), "of-acme");
    let sent = send(&layer, "/api/v2/organizations/globex/x").await;
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("globex"), "{error}");
    assert_eq!(kind(Err(error)), ErrorKind::Organization);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_of_a_new_organization_ask_the_resolver_once() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver);
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let layer = layer.clone();
            tokio::spawn(async move {
                let sent = send(&layer, "/api/v2/organizations/acme/x").await;
                assert_eq!(sent.unwrap(), "of-acme");
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_organization_is_an_error_and_is_remembered_for_a_minute() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver);
    for _ in 0..3 {
        let sent = send(&layer, "/api/v2/organizations/UNKNOWN/x").await;
        assert_eq!(kind(sent), ErrorKind::Organization);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    let sent = send(&layer, "/api/v2/organizations/UNKNOWN/x").await;
    assert_eq!(kind(sent), ErrorKind::Organization);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_could_be_anothers_is_refused_before_anything_is_asked() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver).default_organization("acme");
    for path in [
        "/api/v2/organizations/acme/%2e%2e/globex/x",
        "/api/v2/organizations//globex/x",
        "/api/v2/Organizations/globex/x",
        "/api/v2/organizations/%67lobex/x",
    ] {
        assert_eq!(
            kind(send(&layer, path).await),
            ErrorKind::Organization,
            "{path}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_path_without_a_slug_is_an_error_or_the_defaults() {
    let with_default = |slug| OrganizationsLayer::new(by_name().0).default_organization(slug);
    let layer = with_default("acme");
    assert_eq!(send(&layer, "/api/v2/users/me").await.unwrap(), "of-acme");
    for layer in [OrganizationsLayer::new(by_name().0), with_default("a/b")] {
        let error = send(&layer, "/api/v2/users/me").await.unwrap_err();
        let names_it = error.to_string().contains("default_organization");
        assert!(names_it, "{error}");
        assert_eq!(kind(Err(error)), ErrorKind::Organization);
        let sent = send(&layer, "/api/v2/organizations/acme/x").await;
        assert_eq!(sent.unwrap(), "of-acme");
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_organizations_is_bounded_and_the_unknown_go_first() {
    let layer = OrganizationsLayer::new(by_name().0).max_organizations(8);
    assert_eq!(
        send(&layer, "/api/v2/organizations/acme/x").await.unwrap(),
        "of-acme"
    );
    for nth in 0..100 {
        let path = format!("/api/v2/organizations/UNKNOWN{nth}/x");
        assert!(send(&layer, &path).await.is_err());
        assert!(kept(&layer) <= 8);
    }
    let statuses = layer.statuses();
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].0, "acme");
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_a_sixteenth_of_the_known_organizations_makes_room() {
    let layer = OrganizationsLayer::new(by_name().0).max_organizations(32);
    let mut lengths = Vec::new();
    for nth in 0..100_u8 {
        let slug: String = [nth / 10, nth % 10]
            .map(|digit| char::from(b'a' + digit))
            .iter()
            .collect();
        let path = format!("/api/v2/organizations/{slug}/x");
        let token = send(&layer, &path).await.unwrap();
        assert_eq!(token, format!("of-{slug}"));
        lengths.push(kept(&layer));
    }
    assert_eq!(lengths[..32], (1..=32).collect::<Vec<_>>());
    // Three leave at once, so that the next two find room.
    let (least, most) = (lengths[32..].iter().min(), lengths[32..].iter().max());
    assert_eq!((least, most), (Some(&30), Some(&32)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_organization_is_dropped_and_made_anew() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver).idle_after(s(600));
    send(&layer, "/api/v2/organizations/acme/x").await.unwrap();
    tokio::time::sleep(s(599)).await;
    assert_eq!(layer.statuses().len(), 1);
    tokio::time::sleep(s(602)).await;
    assert_eq!(kept(&layer), 0);
    // The first that comes after that is dropped in its turn.
    for made in 2..=3 {
        send(&layer, "/api/v2/organizations/acme/x").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), made);
        tokio::time::sleep(s(1201)).await;
        assert_eq!(kept(&layer), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_dropped_layer_is_left() {
    let (resolver, asked) = by_name();
    let alive = Arc::strong_count(&asked);
    let layer = OrganizationsLayer::new(resolver);
    send(&layer, "/api/v2/organizations/acme/x").await.unwrap();
    drop(layer);
    tokio::time::sleep(s(1)).await;
    assert_eq!(Arc::strong_count(&asked), alive - 1);
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert_eq!(tasks, 0);
}

#[test]
fn without_a_runtime_a_new_organization_is_an_error() {
    use std::task::{Context, Poll, Waker};

    let layer = OrganizationsLayer::new(by_name().0);
    let mut cx = Context::from_waker(Waker::noop());
    let sent = std::pin::pin!(send(&layer, "/api/v2/organizations/acme/x"));
    let Poll::Ready(sent) = sent.poll(&mut cx) else {
        panic!("it waits");
    };
    assert_eq!(kind(sent), ErrorKind::Runtime);
}

#[tokio::test(start_paused = true)]
async fn a_401_replaces_the_token_of_its_own_organization() {
    let providers = HashMap::from([
        ("acme".to_owned(), ScriptedProvider::new()),
        ("globex".to_owned(), ScriptedProvider::new()),
    ]);
    let layers = providers.clone().into_iter();
    let layers = layers.map(|(slug, provider)| (slug, OfficeRndAuthLayer::new(provider)));
    let layer = OrganizationsLayer::new(layers.collect::<HashMap<_, _>>());
    let api = service_fn(|request: Request<()>| async move {
        let stale = request.uri().path().contains("/acme/")
            && request.headers()["authorization"] == "Bearer scripted-1";
        let mut response = Response::new(());
        if stale {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, BoxError>(response)
    });
    let client = layer.clone().with_retry().layer(api);
    for slug in ["globex", "acme", "acme", "globex"] {
        let url = format!("https://app.officernd.com/api/v2/organizations/{slug}/x");
        let request = Request::get(url).body(()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(providers["acme"].calls(), 2);
    assert_eq!(providers["globex"].calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn at_least_one_organization_is_kept_for_a_second() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver)
        .max_organizations(0)
        .idle_after(Duration::ZERO);
    for _ in 0..2 {
        let sent = send(&layer, "/api/v2/organizations/acme/x").await;
        assert_eq!(sent.unwrap(), "of-acme");
    }
    assert_eq!((kept(&layer), asked.load(Ordering::SeqCst)), (1, 1));
}

/// Sends a request of each of these organizations once a minute.
async fn minutes(layer: &OrganizationsLayer, count: u32, slugs: &[&str]) {
    for _ in 0..count {
        for slug in slugs {
            let path = format!("/api/v2/organizations/{slug}/x");
            send(layer, &path).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_organization_is_dropped_although_no_request_misses() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver);
    minutes(&layer, 1, &["idle", "busy"]).await;
    minutes(&layer, 4 * 60, &["busy"]).await;
    let statuses = layer.statuses();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    assert_eq!(statuses[0].0, "busy");
    // The one in use was never made anew.
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
