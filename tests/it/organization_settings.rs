//! What one organization has of its own: origins and time-outs. And how a request names it.

use std::collections::HashMap;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use officernd_auth::organizations::{OrganizationSlug, OrganizationsLayer, resolver_fn};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    Error, ErrorKind, HttpTokenProvider, OfficeRndAuthLayer, SkipAuth, StaticToken,
};
use officernd_simulator::Simulator;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_test::mock;

use crate::organizations::{kind, send, send_to};
use crate::stack::{app_of, credentials, next};
use crate::support::{Stopwatch, ms, s};

/// A layer over these organizations: the token of each is `of-` and its slug.
fn with_static_tokens(slugs: &[&str]) -> OrganizationsLayer {
    let layers = slugs.iter().map(|slug| {
        let token = StaticToken::new(format!("of-{slug}")).unwrap();
        ((*slug).to_owned(), OfficeRndAuthLayer::new(token))
    });
    OrganizationsLayer::new(layers.collect::<HashMap<_, _>>())
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
        let sent = send(&layer, "/api/v2/organizations/acme/x").await;
        assert_eq!(kind(sent), ErrorKind::Timeout);
        let took = started.elapsed();
        assert!(
            took >= fails_after && took < fails_after + ms(100),
            "{took:?}"
        );
    }
}

/// A production and a staging service, and an organization on each.
async fn production_and_staging() -> (Simulator, Simulator, OrganizationsLayer) {
    let start = |slug| Simulator::builder().org_slug(slug).start();
    let production = start("acme").await.unwrap();
    let staging = start("trial").await.unwrap();
    let layer_of = |simulator: &Simulator| {
        let provider = HttpTokenProvider::new(app_of(simulator)).unwrap();
        let layer = OfficeRndAuthLayer::builder(provider).allow_origin(simulator.url());
        layer.build().unwrap()
    };
    let (acme, trial) = (layer_of(&production), layer_of(&staging));
    let organizations = HashMap::from([("acme".to_owned(), acme), ("trial".to_owned(), trial)]);
    let layer = OrganizationsLayer::new(organizations);
    (production, staging, layer)
}

#[tokio::test]
async fn no_token_of_one_organization_goes_to_the_host_of_the_other() {
    let (production, staging, layer) = production_and_staging().await;
    let client = layer.layer(reqwest::Client::new());
    let get = |host: &Simulator, slug: &str| {
        let url = format!("{}/api/v2/organizations/{slug}/locations", host.url());
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
        client.clone().oneshot(request)
    };
    // Before the organizations are known, and after.
    for round in 1..=2 {
        for (host, slug) in [(&staging, "acme"), (&production, "trial")] {
            let error = get(host, slug).await.unwrap_err();
            let error = Error::find(&error).unwrap();
            // Plain http to a host that the layer does not list.
            assert_eq!(error.kind(), ErrorKind::InsecureOrigin);
            assert!(error.to_string().contains(host.url()), "{error}");
        }
        for (host, slug) in [(&production, "acme"), (&staging, "trial")] {
            assert_eq!(get(host, slug).await.unwrap().status(), 200);
            assert_eq!(host.api_requests(), round);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pass_foreign_origins_sends_such_a_request_without_the_organizations_token() {
    let acme = OfficeRndAuthLayer::builder(StaticToken::new("of-acme").unwrap())
        .pass_foreign_origins()
        .build()
        .unwrap();
    let layer = OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]));
    for _cold_and_warm in 0..2 {
        let path = "https://api.example/api/v2/organizations/acme/x";
        let sent = send_to(&layer, path).await;
        assert_eq!(sent.unwrap(), "none");
        let sent = send(&layer, "/api/v2/organizations/acme/x").await;
        assert_eq!(sent.unwrap(), "of-acme");
    }
    // A path that names no organization is refused, wherever it goes.
    let sent = send_to(&layer, "https://api.example/x").await;
    assert_eq!(kind(sent), ErrorKind::Organization);
}

#[tokio::test(start_paused = true)]
async fn the_request_extension_selects_the_organization_whatever_the_path_says() {
    let layer = with_static_tokens(&["acme", "globex"]);
    let request = |path: &str| {
        Request::get(format!("https://app.officernd.com{path}"))
            .header("x-one", "1")
            .extension(OrganizationSlug::new("globex").unwrap())
            .body("the body")
            .unwrap()
    };
    let paths = [
        "/api/v2/organizations/acme/x",
        "/api/v2/users/me",
        "/a/../organizationsx",
    ];
    // Before the organization is known, and after.
    for path in paths.into_iter().chain(paths) {
        let inner = service_fn(|request: Request<&'static str>| async move {
            assert_eq!(credentials(&request), ["Bearer of-globex"]);
            Ok::<_, Infallible>(Response::new(()))
        });
        layer.layer(inner).oneshot(request(path)).await.unwrap();
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
        let url = "https://app.officernd.com/api/v2/organizations/acme/x";
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
    let layer = OrganizationsLayer::new(resolver_fn(|_slug: String| async { Ok(None) }));
    let inner = service_fn(|request: Request<()>| async move {
        assert_eq!(credentials(&request), ["own"]);
        Ok::<_, Infallible>(Response::new(()))
    });
    let request = Request::get("https://api.example/a/../organizationsx")
        .header("authorization", "own")
        .extension(SkipAuth)
        .body(())
        .unwrap();
    layer.layer(inner).oneshot(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_readied_service_sends_the_request_and_a_refused_one_gives_its_place_back() {
    let layer = with_static_tokens(&["acme"]);
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let inner = tower::limit::ConcurrencyLimit::new(inner, 1);
    let mut client = layer.layer(inner);
    for path in ["/api/v2/organizations/acme/x", "/api/v2/users/me"] {
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
    for (location, second) in [
        ("/api/v2/organizations/acme/x", Some("Bearer of-acme")),
        ("/api/v2/users/me", None),
    ] {
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
        let kind = client
            .oneshot(request)
            .await
            .err()
            .map(|error| Error::find(&error).unwrap().kind());
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
