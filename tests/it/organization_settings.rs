//! What one organization has of its own: origins, rate limit, type of provider. And what all share: one deadline.

use std::collections::HashMap;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use officernd_auth::organizations::{Organization, OrganizationSlug, Organizations, resolver_fn};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    AccessToken, ConfigError, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, StaticToken, TokenProvider,
};
use officernd_simulator::Simulator;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_test::mock;

use crate::organizations::{kind, send};
use crate::stack::{app_of, credentials, next, settle};
use crate::support::{Stopwatch, ms, s};

/// Its rate limit is one token request an hour.
#[derive(Clone)]
struct Limited(RateLimit);

impl Limited {
    fn new() -> Self {
        Self(RateLimit::new(1, s(3600)))
    }
}

impl TokenProvider for Limited {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        AccessToken::bearer("limited", s(3600))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        Some(self.0.clone())
    }
}

/// How many of three organizations get a token.
async fn served(layer: &OfficeRndAuthLayer<Organizations>) -> usize {
    let mut served = 0;
    for slug in ["a", "b", "c"] {
        match send(layer, &format!("/api/v2/organizations/{slug}/x")).await {
            Ok(_) => served += 1,
            result => assert_eq!(kind(result), ErrorKind::RateLimited),
        }
    }
    served
}

#[tokio::test(start_paused = true)]
async fn the_organizations_rate_limit_wins_over_the_builders_and_that_over_the_providers() {
    let of = |organization: fn() -> Organization| {
        let names = ["a", "b", "c"].map(|slug| (slug.to_owned(), organization()));
        OfficeRndAuthLayer::per_organization(HashMap::from(names))
    };
    let own = Limited::new();
    let shared = own.clone();
    let resolver = resolver_fn(move |_slug: String| {
        let provider = shared.clone();
        async move { Ok(Some(provider)) }
    });
    let builder = OfficeRndAuthLayer::per_organization(resolver);
    assert_eq!(served(&builder.build().unwrap()).await, 1);

    let limited = || Organization::new(Limited::new());
    let layer = of(limited).rate_limit(RateLimit::unlimited()).build();
    assert_eq!(served(&layer.unwrap()).await, 3);
    let layer = of(limited).rate_limit(RateLimit::new(2, s(3600))).build();
    assert_eq!(served(&layer.unwrap()).await, 2);

    let unlimited = || Organization::new(Limited::new()).rate_limit(RateLimit::unlimited());
    let layer = of(unlimited).rate_limit(RateLimit::new(1, s(3600))).build();
    assert_eq!(served(&layer.unwrap()).await, 3);
}

#[tokio::test(start_paused = true)]
async fn resolver_and_token_share_one_acquire_timeout() {
    let resolver = resolver_fn(|_slug: String| async {
        tokio::time::sleep(s(20)).await;
        Ok(Some(ScriptedProvider::new().latency(s(8))))
    });
    let layer = OfficeRndAuthLayer::per_organization(resolver)
        .acquire_timeout(s(25))
        .build()
        .unwrap();
    let started = Stopwatch::start();
    let sent = send(&layer, "/api/v2/organizations/acme/x").await;
    assert_eq!(kind(sent), ErrorKind::Timeout);
    let took = started.elapsed();
    assert!(took >= s(25) && took < s(25) + ms(100), "{took:?}");
}

/// A production and a staging service, and an organization on each.
async fn production_and_staging() -> (Simulator, Simulator, OfficeRndAuthLayer<Organizations>) {
    let start = |slug| Simulator::builder().org_slug(slug).start();
    let production = start("acme").await.unwrap();
    let staging = start("trial").await.unwrap();
    let acme = Organization::new(HttpTokenProvider::new(app_of(&production)).unwrap())
        .restrict_to_origin(production.url())
        .unwrap();
    // Of another type.
    let provider = HttpTokenProvider::new(app_of(&staging)).unwrap();
    let trial = Organization::from(std::sync::Arc::new(provider))
        .restrict_to_origin(staging.url())
        .unwrap();
    let organizations = HashMap::from([("acme".to_owned(), acme), ("trial".to_owned(), trial)]);
    let layer = OfficeRndAuthLayer::per_organization(organizations)
        .allow_origin(production.url())
        .allow_origin(staging.url())
        .build()
        .unwrap();
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
            assert_eq!(error.kind(), ErrorKind::ForeignOrigin);
            assert!(error.to_string().contains(slug), "{error}");
        }
        for (host, slug) in [(&production, "acme"), (&staging, "trial")] {
            assert_eq!(get(host, slug).await.unwrap().status(), 200);
            assert_eq!(host.api_requests(), round);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pass_foreign_origins_sends_such_a_request_without_the_organizations_token() {
    let acme = Organization::new(StaticToken::new("of-acme").unwrap())
        .restrict_to_origin("https://hybrid.officernd.com")
        .unwrap();
    let layer = OfficeRndAuthLayer::per_organization(HashMap::from([("acme".to_owned(), acme)]))
        .pass_foreign_origins()
        .build()
        .unwrap();
    for _cold_and_warm in 0..2 {
        let sent = send(&layer, "/api/v2/organizations/acme/x").await;
        assert_eq!(sent.unwrap(), "none");
    }
}

#[test]
fn a_mistaken_origin_of_an_organization_is_an_error() {
    let organization = Organization::new(StaticToken::new("abc").unwrap());
    let error = organization.restrict_to_origin("app.officernd.com");
    assert!(
        matches!(error, Err(ConfigError::Setting { .. })),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_request_extension_selects_the_organization_whatever_the_path_says() {
    let tokens = ["acme", "globex"].map(|slug| {
        let token = StaticToken::new(format!("of-{slug}")).unwrap();
        (slug.to_owned(), token)
    });
    let layer = OfficeRndAuthLayer::per_organization(HashMap::from(tokens))
        .build()
        .unwrap();
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

        let (inner, mut server) = mock::pair::<reqwest::Request, reqwest::Response>();
        let mut client = layer.layer(inner);
        let request = reqwest::Request::try_from(request(path)).unwrap();
        let call = client.ready().await.unwrap().call(request);
        let call = tokio::spawn(call);
        let (request, reply) = next(&mut server).await;
        assert_eq!(request.headers()["authorization"], "Bearer of-globex");
        assert_eq!(request.headers()["x-one"], "1");
        assert_eq!(request.body().unwrap().as_bytes(), Some(&b"the body"[..]));
        reply.send_response(Response::new("").into());
        call.await.unwrap().unwrap();
    }
    settle().await;
    assert_eq!(layer.organizations().len(), 1);
}

/// tower-http drops the extensions of a request that it redirects.
#[tokio::test]
async fn a_redirect_layer_above_drops_the_extension_so_the_new_path_selects_the_organization() {
    let tokens = ["acme", "globex"].map(|slug| {
        let token = StaticToken::new(format!("of-{slug}")).unwrap();
        (slug.to_owned(), token)
    });
    let layer = OfficeRndAuthLayer::per_organization(HashMap::from(tokens))
        .build()
        .unwrap();
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
