//! Several organizations behind one layer.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use officernd_auth::builder::{New, Resolver};
use officernd_auth::organizations::{OrganizationResolver, Organizations, ResolverFn, resolver_fn};
use officernd_auth::testing::{ManualClock, ScriptedProvider};
use officernd_auth::{
    AccessToken, BoxError, Builder, Error, ErrorKind, OfficeRndAuthLayer, RateLimit, StaticToken,
    provider_fn,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Stopwatch, s};

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
                provider_fn(move || {
                    let token = format!("of-{slug}");
                    async move { AccessToken::bearer(token, Duration::from_secs(3600)) }
                })
            }))
        }
    });
    (resolver, asked)
}

fn builder(resolver: impl OrganizationResolver) -> Builder<New<Resolver>> {
    OfficeRndAuthLayer::per_organization(resolver).rate_limit(RateLimit::unlimited())
}

/// What reached the inner service: the token, or none.
pub(crate) async fn send(
    layer: &OfficeRndAuthLayer<Organizations>,
    path: &str,
) -> Result<String, BoxError> {
    let echo = service_fn(|request: Request<()>| async move {
        let value = request.headers().get("authorization");
        let token = value.map_or("none", |value| value.to_str().unwrap());
        Ok::<_, Infallible>(Response::new(
            token.trim_start_matches("Bearer ").to_owned(),
        ))
    });
    let request = Request::get(format!("https://app.officernd.com{path}"));
    let response = layer.layer(echo).oneshot(request.body(())?).await?;
    Ok(response.into_body())
}

pub(crate) fn kind(result: Result<String, BoxError>) -> ErrorKind {
    Error::find(&result.unwrap_err()).unwrap().kind()
}

#[tokio::test(start_paused = true)]
async fn the_slug_of_the_path_picks_the_token() {
    let layer = builder(by_name().0).build().unwrap();
    assert!(layer.organizations().is_empty());
    for slug in ["acme", "globex", "acme"] {
        for version in ["v1", "v2"] {
            let path = format!("/api/{version}/organizations/{slug}/locations?limit=1");
            assert_eq!(send(&layer, &path).await.unwrap(), format!("of-{slug}"));
        }
    }
    assert_eq!(layer.organizations().len(), 2);
    assert!(!layer.organizations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sorted_map_is_a_resolver_too() {
    let tokens = BTreeMap::from([("acme".to_owned(), StaticToken::new("of-acme").unwrap())]);
    let layer = builder(tokens).build().unwrap();
    let sent = send(&layer, "/api/v2/organizations/acme/x").await;
    assert_eq!(sent.unwrap(), "of-acme");
    let sent = send(&layer, "/api/v2/organizations/globex/x").await;
    assert_eq!(kind(sent), ErrorKind::Organization);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_asked_of_nobody_spend_no_token_request() {
    let tokens = (0..20).map(|n| {
        (
            format!("org-{n}"),
            StaticToken::new(format!("of-{n}")).unwrap(),
        )
    });
    let tokens: HashMap<_, _> = tokens.collect();
    let layer = OfficeRndAuthLayer::per_organization(tokens)
        .build()
        .unwrap();
    for n in 0..20 {
        let sent = send(&layer, &format!("/api/v2/organizations/org-{n}/x")).await;
        assert_eq!(sent.unwrap(), format!("of-{n}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_of_a_new_organization_ask_the_resolver_once() {
    let (resolver, asked) = by_name();
    let layer = builder(resolver).build().unwrap();
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
    let layer = builder(resolver).build().unwrap();
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
async fn a_resolver_that_never_answers_is_waited_for_no_longer_than_a_token() {
    type Resolved = Result<Option<StaticToken>, Error>;

    let resolver = resolver_fn(|_slug: String| std::future::pending::<Resolved>());
    let layer = builder(resolver).build().unwrap();
    let start = Stopwatch::start();
    let sent = send(&layer, "/api/v2/organizations/acme/x").await;
    assert_eq!(kind(sent), ErrorKind::Timeout);
    assert!(start.elapsed() < s(31), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_path_that_could_be_anothers_is_refused_before_anything_is_asked() {
    let (resolver, asked) = by_name();
    let layer = builder(resolver)
        .default_organization("acme")
        .build()
        .unwrap();
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
    let layer = builder(by_name().0).build().unwrap();
    let error = send(&layer, "/api/v2/users/me").await.unwrap_err();
    assert!(
        error.to_string().contains("default_organization"),
        "{error}"
    );
    let layer = builder(by_name().0)
        .default_organization("acme")
        .build()
        .unwrap();
    assert_eq!(send(&layer, "/api/v2/users/me").await.unwrap(), "of-acme");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_organizations_is_bounded_and_the_unknown_go_first() {
    let layer = builder(by_name().0).max_organizations(8).build().unwrap();
    assert_eq!(
        send(&layer, "/api/v2/organizations/acme/x").await.unwrap(),
        "of-acme"
    );
    for nth in 0..100 {
        let path = format!("/api/v2/organizations/UNKNOWN{nth}/x");
        assert!(send(&layer, &path).await.is_err());
        assert!(layer.organizations().len() <= 8);
    }
    let statuses = layer.organizations().statuses();
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].0, "acme");
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_a_sixteenth_of_the_known_organizations_makes_room() {
    let layer = builder(by_name().0).max_organizations(32).build().unwrap();
    let mut lengths = Vec::new();
    for nth in 0..100_u8 {
        let slug: String = [nth / 10, nth % 10]
            .map(|digit| char::from(b'a' + digit))
            .iter()
            .collect();
        let path = format!("/api/v2/organizations/{slug}/x");
        let token = send(&layer, &path).await.unwrap();
        assert_eq!(token, format!("of-{slug}"));
        lengths.push(layer.organizations().len());
    }
    assert_eq!(lengths[..32], (1..=32).collect::<Vec<_>>());
    // Three leave at once, so that the next two find room.
    let (least, most) = (lengths[32..].iter().min(), lengths[32..].iter().max());
    assert_eq!((least, most), (Some(&30), Some(&32)));
}

#[tokio::test]
async fn an_idle_organization_is_dropped_and_made_anew() {
    let clock = ManualClock::new();
    let (resolver, asked) = by_name();
    let layer = builder(resolver)
        .clock(clock.clone())
        .idle_after(Duration::from_secs(600))
        .build()
        .unwrap();
    send(&layer, "/api/v2/organizations/acme/x").await.unwrap();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(601));
        send(&layer, "/api/v2/organizations/busy/x").await.unwrap();
        send(&layer, "/api/v2/organizations/NONE/x")
            .await
            .unwrap_err();
    }
    let statuses = layer.organizations().statuses();
    assert!(
        statuses.iter().all(|(slug, _)| slug == "busy"),
        "{statuses:?}"
    );
    send(&layer, "/api/v2/organizations/acme/x").await.unwrap();
    assert!(asked.load(Ordering::SeqCst) >= 3);
}

#[tokio::test(start_paused = true)]
async fn all_organizations_share_one_rate_limit() {
    let resolver: ResolverFn<_> =
        resolver_fn(|_slug: String| async { Ok(Some(ScriptedProvider::new())) });
    let layer = OfficeRndAuthLayer::per_organization(resolver)
        .acquire_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    for slug in ["a", "b", "c", "d", "e"] {
        let path = format!("/api/v2/organizations/{slug}/x");
        assert!(send(&layer, &path).await.is_ok());
    }
    let sent = send(&layer, "/api/v2/organizations/f/x").await;
    assert_eq!(kind(sent), ErrorKind::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn a_401_replaces_the_token_of_its_own_organization() {
    let providers = HashMap::from([
        ("acme".to_owned(), ScriptedProvider::new()),
        ("globex".to_owned(), ScriptedProvider::new()),
    ]);
    let layer = builder(providers.clone()).build().unwrap();
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

#[test]
fn settings_that_make_no_sense_are_named() {
    let wrong = |builder: Builder<New<Resolver>>| builder.build().unwrap_err().to_string();
    assert!(wrong(builder(by_name().0).max_organizations(0)).contains("max_organizations"));
    assert!(wrong(builder(by_name().0).idle_after(Duration::ZERO)).contains("idle_after"));
    let message = wrong(builder(by_name().0).default_organization("a/b"));
    assert!(message.contains("default_organization"), "{message}");
}

/// Sends a request of each of these organizations once a minute.
async fn minutes(layer: &OfficeRndAuthLayer<Organizations>, count: u32, slugs: &[&str]) {
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
    let layer = builder(resolver).build().unwrap();
    minutes(&layer, 1, &["idle", "busy"]).await;
    minutes(&layer, 4 * 60, &["busy"]).await;
    let statuses = layer.organizations().statuses();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    assert_eq!(statuses[0].0, "busy");
    // The one in use was never made anew.
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
