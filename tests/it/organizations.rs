//! Several organizations behind one layer, each with its own origins and timeouts.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use officernd_auth::organizations::{
    OrganizationResolver, OrganizationSlug, OrganizationsLayer, resolver_fn,
};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    AccessToken, BoxError, Builder, Error, ErrorKind, OfficeRndAuthLayer, SkipAuth, StaticToken,
    provider_fn,
};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_test::mock;

use crate::support::{Stopwatch, at_once, credentials, ms, next, s};

const ACME: &str = "/api/v2/organizations/acme/x";

/// A layer over these organizations: the token of each is `of-` and its slug.
fn with_static_tokens(slugs: &[&str]) -> OrganizationsLayer {
    with_settings(&slugs.iter().map(|&slug| (slug, None)).collect::<Vec<_>>())
}

type Set = fn(Builder) -> Builder;

/// The same, with settings for each organization.
fn with_settings(organizations: &[(&str, Option<Set>)]) -> OrganizationsLayer {
    let layers = organizations.iter().map(|&(slug, set)| {
        let token = StaticToken::new(format!("of-{slug}")).unwrap();
        let set = set.unwrap_or(|builder| builder);
        let layer = set(OfficeRndAuthLayer::builder(token)).build().unwrap();
        (slug.to_owned(), layer)
    });
    OrganizationsLayer::new(layers.collect::<HashMap<_, _>>())
}

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
                    async move { AccessToken::bearer(token, s(3600)) }
                }))
            }))
        }
    });
    (resolver, asked)
}

/// What reached the inner service: the token, or none.
async fn send(layer: &OrganizationsLayer, path: &str) -> Result<String, BoxError> {
    send_to(layer, &format!("https://app.officernd.com{path}")).await
}

async fn send_to(layer: &OrganizationsLayer, url: &str) -> Result<String, BoxError> {
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

fn kind(result: Result<String, BoxError>) -> ErrorKind {
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
    let layer = with_static_tokens(&["acme"]);
    assert_eq!(send(&layer, ACME).await.unwrap(), "of-acme");
    let sent = send(&layer, "/api/v2/organizations/globex/x").await;
    assert!(sent.as_ref().unwrap_err().to_string().contains("globex"));
    assert_eq!(kind(sent), ErrorKind::Organization);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_of_a_new_organization_ask_the_resolver_once() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver);
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let layer = layer.clone();
            tokio::spawn(async move {
                let sent = send(&layer, ACME).await;
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
    for times in 1..=2 {
        for _ in 0..3 {
            let sent = send(&layer, "/api/v2/organizations/UNKNOWN/x").await;
            assert_eq!(kind(sent), ErrorKind::Organization);
        }
        assert_eq!(asked.load(Ordering::SeqCst), times);
        tokio::time::advance(s(61)).await;
    }
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
        let sent = send(&layer, ACME).await;
        assert_eq!(sent.unwrap(), "of-acme");
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_organizations_is_bounded_and_the_unknown_go_first() {
    let layer = OrganizationsLayer::new(by_name().0).max_organizations(8);
    assert_eq!(send(&layer, ACME).await.unwrap(), "of-acme");
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
    send(&layer, ACME).await.unwrap();
    tokio::time::sleep(s(599)).await;
    assert_eq!(layer.statuses().len(), 1);
    tokio::time::sleep(s(602)).await;
    assert_eq!(kept(&layer), 0);
    // The first that comes after that is dropped in its turn.
    for made in 2..=3 {
        send(&layer, ACME).await.unwrap();
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
    send(&layer, ACME).await.unwrap();
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
    let layer = OrganizationsLayer::new(by_name().0);
    let sent = at_once(send(&layer, ACME)).expect("it does not wait");
    assert_eq!(kind(sent), ErrorKind::Runtime);
}

#[tokio::test(start_paused = true)]
async fn a_401_replaces_the_token_of_its_own_organization() {
    let (acme, globex) = (ScriptedProvider::new(), ScriptedProvider::new());
    let layers = [("acme", &acme), ("globex", &globex)];
    let layers = layers.map(|(slug, it)| (slug.to_owned(), OfficeRndAuthLayer::new(it.clone())));
    let layer = OrganizationsLayer::new(HashMap::from(layers));
    let api = service_fn(|request: Request<()>| async move {
        let stale = request.uri().path().contains("/acme/")
            && credentials(&request) == ["Bearer scripted-1"];
        let status = if stale { 401 } else { 200 };
        Ok::<_, BoxError>(Response::builder().status(status).body(()).unwrap())
    });
    let client = layer.clone().with_retry().layer(api);
    for slug in ["globex", "acme", "acme", "globex"] {
        let url = format!("https://app.officernd.com/api/v2/organizations/{slug}/x");
        let request = Request::get(url).body(()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!((acme.calls(), globex.calls()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn at_least_one_organization_is_kept_for_a_second() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver)
        .max_organizations(0)
        .idle_after(s(0));
    for _ in 0..2 {
        let sent = send(&layer, ACME).await;
        assert_eq!(sent.unwrap(), "of-acme");
    }
    assert_eq!((kept(&layer), asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_organization_is_dropped_although_no_request_misses() {
    let (resolver, asked) = by_name();
    let layer = OrganizationsLayer::new(resolver);
    send(&layer, "/api/v2/organizations/idle/x").await.unwrap();
    for _ in 0..4 * 60 {
        send(&layer, ACME).await.unwrap();
        tokio::time::sleep(s(60)).await;
    }
    let statuses = layer.statuses();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    assert_eq!(statuses[0].0, "acme");
    // The one in use was never made anew.
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_resolver_and_the_layer_have_a_time_out_each() {
    for (answers_after, fails_after) in [(s(29), s(34)), (s(3600), s(30))] {
        let resolver = resolver_fn(move |_slug: String| async move {
            tokio::time::sleep(answers_after).await;
            let provider = ScriptedProvider::new().latency(s(8));
            let layer = OfficeRndAuthLayer::builder(provider).acquire_timeout(s(5));
            Ok(layer.build().ok())
        });
        let layer = OrganizationsLayer::new(resolver);
        let started = Stopwatch::start();
        let sent = send(&layer, ACME).await;
        assert_eq!(kind(sent), ErrorKind::Timeout);
        let took = started.elapsed();
        assert!(
            took >= fails_after && took < fails_after + ms(100),
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_of_one_organization_goes_to_the_host_of_the_other() {
    let layer = with_settings(&[
        (
            "acme",
            Some(|it| it.allow_origin("https://production.example")),
        ),
        (
            "trial",
            Some(|it| it.allow_origin("https://staging.example")),
        ),
    ]);
    let url =
        |host: &str, slug: &str| format!("https://{host}.example/api/v2/organizations/{slug}/x");
    // Before the organizations are known, and after.
    for _ in 0..2 {
        for (host, slug) in [("staging", "acme"), ("production", "trial")] {
            let sent = send_to(&layer, &url(host, slug)).await;
            assert!(sent.as_ref().unwrap_err().to_string().contains(host));
            assert_eq!(kind(sent), ErrorKind::ForeignOrigin);
        }
        for (host, slug) in [("production", "acme"), ("staging", "trial")] {
            let sent = send_to(&layer, &url(host, slug)).await;
            assert_eq!(sent.unwrap(), format!("of-{slug}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pass_foreign_origins_sends_such_a_request_without_the_organizations_token() {
    let layer = with_settings(&[("acme", Some(Builder::pass_foreign_origins))]);
    for _cold_and_warm in 0..2 {
        let sent = send_to(&layer, &format!("https://api.example{ACME}")).await;
        assert_eq!(sent.unwrap(), "none");
        assert_eq!(send(&layer, ACME).await.unwrap(), "of-acme");
    }
    // A path without an organization is refused on any host.
    let sent = send_to(&layer, "https://api.example/x").await;
    assert_eq!(kind(sent), ErrorKind::Organization);
}

#[tokio::test(start_paused = true)]
async fn the_request_extension_selects_the_organization_whatever_the_path_says() {
    let layer = with_static_tokens(&["acme", "globex"]);
    let inner = service_fn(|request: Request<()>| async move {
        assert_eq!(credentials(&request), ["Bearer of-globex"]);
        Ok::<_, Infallible>(Response::new(()))
    });
    for _cold_and_warm in 0..2 {
        for path in [ACME, "/api/v2/users/me", "/a/../organizationsx"] {
            let request = Request::get(format!("https://app.officernd.com{path}"))
                .extension(OrganizationSlug::new("globex").unwrap())
                .body(());
            layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
        }
    }
    assert_eq!(layer.statuses().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_path_selects_the_organization_of_a_reqwest_request() {
    let layer = with_static_tokens(&["acme"]);
    // Before the organization is known, and after.
    for _ in 0..2 {
        let (inner, mut server) = mock::pair::<reqwest::Request, reqwest::Response>();
        let mut client = layer.layer(inner);
        let url = format!("https://app.officernd.com{ACME}");
        let request = Request::post(url).header("x-one", "1").body("the body");
        let request = reqwest::Request::try_from(request.unwrap()).unwrap();
        let call = tokio::spawn(client.ready().await.unwrap().call(request));
        let (request, reply) = next(&mut server).await;
        assert_eq!(request.headers()["authorization"], "Bearer of-acme");
        assert_eq!(request.headers()["x-one"], "1");
        assert_eq!(request.body().unwrap().as_bytes(), Some(&b"the body"[..]));
        reply.send_response(Response::new("").into());
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn skip_auth_sends_a_request_of_any_path_as_it_is() {
    let layer = with_static_tokens(&[]);
    let inner = service_fn(|request: Request<()>| async move {
        assert_eq!(credentials(&request), ["own"]);
        Ok::<_, Infallible>(Response::new(()))
    });
    let request = Request::get("https://api.example/a/../organizationsx")
        .header("authorization", "own")
        .extension(SkipAuth)
        .body(());
    layer.layer(inner).oneshot(request.unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_readied_service_sends_the_request_and_a_refused_one_gives_its_place_back() {
    let layer = with_static_tokens(&["acme"]);
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let inner = ConcurrencyLimit::new(inner, 1);
    let mut client = layer.layer(inner);
    for path in [ACME, "/api/v2/users/me"] {
        for _cold_and_warm in 0..3 {
            let request = Request::get(format!("https://app.officernd.com{path}"));
            let request = request.body(()).unwrap();
            let sent = client.ready().await.unwrap().call(request).await;
            assert_eq!(sent.is_ok(), path.ends_with("acme/x"));
        }
    }
}

/// tower-http drops the extensions of a request that it redirects.
#[tokio::test]
async fn a_redirect_layer_above_drops_the_extension_so_the_new_path_selects_the_organization() {
    let layer = with_static_tokens(&["acme", "globex"]);
    for (location, second) in [(ACME, Some("Bearer of-acme")), ("/api/v2/users/me", None)] {
        let api = service_fn(move |request: Request<Empty<Bytes>>| async move {
            let response = match (request.uri().path(), &credentials(&request)[..]) {
                ("/first", ["Bearer of-globex"]) => {
                    Response::builder().status(307).header("location", location)
                }
                (path, [bearer]) if path == location && Some(*bearer) == second => {
                    Response::builder()
                }
                unexpected => panic!("{unexpected:?}"),
            };
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        });
        let client = FollowRedirectLayer::new().layer(layer.layer(api));
        let request = Request::get("https://app.officernd.com/first")
            .extension(OrganizationSlug::new("globex").unwrap())
            .body(Empty::new())
            .unwrap();
        let error = client.oneshot(request).await.err();
        let kind = error.map(|error| Error::find(&error).unwrap().kind());
        let wanted = second.is_none().then_some(ErrorKind::Organization);
        assert_eq!(kind, wanted, "{location}");
    }
}

#[test]
fn an_organization_slug_is_a_slug() {
    assert_eq!(
        OrganizationSlug::new("acme-2_X").unwrap().as_str(),
        "acme-2_X"
    );
    for bad in ["", "a/b", "a.b", "%61", &"a".repeat(64)] {
        let error = OrganizationSlug::new(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Organization, "{bad}");
    }
}
