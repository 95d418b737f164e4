//! docs/observability.md is true: what a running layer tells is listed there,
//! and what is listed there is in the code.

use std::sync::Mutex;

use officernd_auth::credentials::AppCredentials;
use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{
    ClientCredentials, ErrorKind, FetchContext, HttpTokenProvider, OfficeRndAuthLayer, RateLimit,
    SkipAuth, TokenCache, TokenProvider, TokenStatus,
};
use officernd_simulator::{Fault, Simulator};
use testkit::page::{Events, Page};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::support::{
    Log, URL, answer, app_of, get, next, over_mock, s, send, set_subscriber, settle,
};

const PAGE: Page = Page(include_str!("../../docs/observability.md"));

#[test]
fn the_names_in_the_code_are_the_names_on_the_page() {
    PAGE.lists_the_names_in(env!("CARGO_MANIFEST_DIR"));
}

#[test]
fn the_fields_of_the_status_are_on_the_page() {
    let cache = TokenCache::new(ScriptedProvider::new());
    let status = serde_json::to_value::<TokenStatus>(cache.status()).unwrap();
    PAGE.lists_fields(status.as_object().unwrap().keys());
}

/// Everything that can happen to a request and to a refresh, but for a fetch
/// that comes back long after it was given up.
async fn everything_happens() {
    let provider = ScriptedProvider::new();
    let layer = OfficeRndAuthLayer::new(provider.clone());
    let cache = layer.cache();
    let (mut client, mut server) = over_mock(&layer);

    // Waits, then a hit that is answered 401, then a hit with the replacement.
    for status in [200, 401, 200] {
        let call = tokio::spawn(send(&mut client, get(URL)));
        let (_, reply) = next(&mut server).await;
        reply.send_response(answer(status));
        call.await.unwrap().unwrap();
        settle().await;
    }
    // Goes out as it is; does not go out.
    let mut request = get(URL);
    request.extensions_mut().insert(SkipAuth);
    let call = tokio::spawn(send(&mut client, request));
    next(&mut server).await.1.send_response(answer(200));
    call.await.unwrap().unwrap();
    let refused = send(&mut client, get("https://evil.example/")).await;
    refused.unwrap_err();
    // A provider that panics, and one that fails.
    provider.push(Step::Panic);
    provider.push(Step::Fail(ErrorKind::Transport));
    provider.push(Step::Fail(ErrorKind::Transport));
    cache.refresh().await.unwrap_err();
    // Waits without a result; leaves.
    tokio::time::sleep(s(7200)).await;
    provider.push(Step::Fail(ErrorKind::Denied));
    send(&mut client, get(URL)).await.unwrap_err();
    tokio::time::sleep(s(7200)).await;
    provider.push(Step::Hang);
    let left = tokio::time::timeout(s(1), send(&mut client, get(URL))).await;
    left.unwrap_err();
    // The rate limit is spent.
    let none = RateLimit::new(0, s(60));
    let spent = OfficeRndAuthLayer::builder(ScriptedProvider::new()).rate_limit(none);
    let spent = spent.build().unwrap();
    spent.cache().token().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn spans_and_events_have_the_levels_and_fields_of_the_page() {
    let events = Events::default();
    let _guard = set_subscriber(events.clone());
    everything_happens().await;
    tokio::time::resume();
    a_provider_complains().await;

    let silent = PAGE.compare_events(&events);
    let page = PAGE.rows("officernd_auth.");
    let unknown = events.names();
    let unknown = unknown.iter().find(|name| !page.contains_key(&***name));
    assert_eq!(unknown, None);
    // A fetch that comes back late; a misspelled variable, which config.rs sets in a process of its own.
    let others = [
        "officernd_auth.refresh_abandoned",
        "officernd_auth.unknown_variable",
    ];
    assert_eq!(silent, others);
}

#[tokio::test]
async fn a_token_request_is_a_client_span_without_the_query() {
    let (log, _guard) = Log::start(LevelFilter::INFO, FmtSpan::CLOSE);
    let officernd = Simulator::start().await.unwrap();
    let url = format!("{}?key=sesame", officernd.token_url());
    let provider = HttpTokenProvider::new(app_of(&officernd).token_url(url)).unwrap();
    provider.fetch(FetchContext::default()).await.unwrap();
    officernd.token_faults().next(1, Fault::Status(503));
    let failed = provider.fetch(FetchContext::default()).await;
    assert!(failed.is_err());
    let span_of_refresh = async |provider: ScriptedProvider| {
        let _ = TokenCache::new(provider).token().await;
        let text = log.text();
        let mut refreshes = text.lines().filter(|line| line.contains("auth.refresh{"));
        refreshes.next_back().unwrap().to_owned()
    };
    let denied = ScriptedProvider::new();
    denied.push(Step::Fail(ErrorKind::Denied));
    let span = span_of_refresh(denied).await;
    assert!(span.contains("otel.status_code=\"ERROR\""), "{span}");
    let span = span_of_refresh(ScriptedProvider::new()).await;
    assert!(span.contains("outcome=\"ok\""), "{span}");
    assert!(!span.contains("ERROR"), "{span}");

    let text = log.text();
    let spans: Vec<_> = text
        .lines()
        .filter(|line| line.contains("token_request"))
        .collect();
    let full = format!("url.full={}", officernd.token_url());
    let port = format!("server.port={}", officernd.addr().port());
    for part in [
        "otel.kind=\"client\"",
        "http.request.method=\"POST\"",
        "server.address=\"127.0.0.1\"",
        &full,
        &port,
    ] {
        let everywhere = spans.iter().all(|span| span.contains(part));
        assert!(everywhere, "no {part} in {text}");
    }
    assert_eq!(spans.len(), 2, "{text}");
    assert!(spans[0].contains("http.response.status_code=200"), "{text}");
    assert!(!spans[0].contains("error.type"), "{text}");
    assert!(spans[1].contains("http.response.status_code=503"), "{text}");
    assert!(spans[1].contains("error.type=\"503\""), "{text}");
    assert!(!text.contains("sesame"), "{text}");
}

/// A secret that cannot be read again, and a scope that is narrower.
async fn a_provider_complains() {
    let officernd = Simulator::start().await.unwrap();
    let (first, secret) = (Mutex::new(true), officernd.client_secret());
    let id = officernd.client_id();
    let credentials = ClientCredentials::from_source(move || {
        let first = std::mem::take(&mut *first.lock().unwrap());
        std::future::ready(match first {
            true => Ok(AppCredentials::new(&*id, &*secret)),
            false => Err("the keyring is locked".into()),
        })
    })
    .scope("one two")
    .token_url(officernd.token_url());
    let body = r#"{"access_token":"abc","token_type":"Bearer","expires_in":60,"scope":"one"}"#;
    officernd.token_faults().next(1, Fault::json(200, body));
    let provider = HttpTokenProvider::new(credentials).unwrap();
    for _ in 0..2 {
        let _ = provider.fetch(FetchContext::default()).await;
    }
}

#[cfg(feature = "metrics")]
mod metrics_too {
    use std::collections::HashMap;

    use officernd_auth::BoxError;
    use officernd_auth::organizations::OrganizationsLayer;
    use testkit::page::Metrics;
    use tower::{Layer as _, ServiceExt as _};

    use super::*;
    #[cfg(feature = "reqwest-middleware")]
    use crate::raw::closed_port;
    use crate::support::Request;

    #[tokio::test(start_paused = true)]
    async fn metrics_have_the_types_units_and_labels_of_the_page() {
        let metrics = Metrics::default();
        let guard = metrics::set_default_local_recorder(&metrics);
        officernd_auth::observability::describe_metrics();
        everything_happens().await;
        drop(guard);

        PAGE.compare_metrics(&metrics);
        assert_eq!(
            metrics.values("officernd_auth_requests_total", "outcome"),
            ["failed", "hit", "left", "passed", "refused", "waited"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn prometheus_shows_them() {
        let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let guard = metrics::set_default_local_recorder(&prometheus);
        officernd_auth::observability::describe_metrics();
        everything_happens().await;
        drop(guard);

        let page = prometheus.handle().render();
        for line in [
            "# TYPE officernd_auth_requests_total counter",
            "officernd_auth_requests_total{outcome=\"hit\"} 2",
            "officernd_auth_requests_total{outcome=\"waited\"} 1",
            "officernd_auth_requests_total{outcome=\"left\"} 1",
            "officernd_auth_waiting_requests 0",
            "officernd_auth_token_rejections_total 1",
            "officernd_auth_refreshes_total{cause=\"manual\",outcome=\"lost\"} 1",
            "officernd_auth_refreshes_total{cause=\"rejected\",outcome=\"ok\"} 1",
        ] {
            assert!(page.contains(line), "no {line} in {page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_took_no_permit_is_no_refresh() {
        let metrics = Metrics::default();
        let _guard = metrics::set_default_local_recorder(&metrics);
        let limit = |requests| RateLimit::new(requests, s(60));
        for (requests, outcomes) in [(0, &[][..]), (1, &["ok"])] {
            let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new());
            let layer = layer.rate_limit(limit(requests)).build().unwrap();
            let result = layer.cache().token().await;
            assert_eq!(result.is_ok(), requests == 1);
            settle().await;
            for (name, label) in [
                ("officernd_auth_refreshes_total", "outcome"),
                ("officernd_auth_refresh_duration_seconds", "outcome"),
            ] {
                assert_eq!(metrics.values(name, label), outcomes, "{name}");
            }
        }
    }

    fn organizations() -> OrganizationsLayer {
        let acme = OfficeRndAuthLayer::new(ScriptedProvider::new());
        OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]))
    }

    /// A path without an organization, and an organization that is not found.
    const NO_ORGANIZATION: [(&str, &str); 2] = [
        ("https://app.officernd.com/api/v2/users/me", "refused"),
        (
            "https://app.officernd.com/api/v2/organizations/globex/x",
            "failed",
        ),
    ];

    #[tokio::test]
    async fn a_request_without_an_organization_is_refused_and_one_of_an_unknown_organization_fails()
    {
        for (url, outcome) in NO_ORGANIZATION {
            let metrics = Metrics::default();
            let _guard = metrics::set_default_local_recorder(&metrics);
            let inner = tower::service_fn(async |_: Request| Ok::<_, BoxError>(answer(200)));
            let client = organizations().layer(inner);
            client.oneshot(get(url)).await.unwrap_err();
            let outcomes = metrics.values("officernd_auth_requests_total", "outcome");
            assert_eq!(outcomes, [outcome], "{url}");
        }
    }

    #[cfg(feature = "reqwest-middleware")]
    #[tokio::test]
    async fn a_middleware_of_reqwest_counts_requests_without_an_organization_or_a_token() {
        let client = || reqwest_middleware::ClientBuilder::new(reqwest::Client::new());
        let outcome_of = async |request: reqwest_middleware::RequestBuilder| {
            let metrics = Metrics::default();
            let _guard = metrics::set_default_local_recorder(&metrics);
            request.send().await.unwrap_err();
            metrics.values("officernd_auth_requests_total", "outcome")
        };
        let all = client().with(organizations()).build();
        for (url, outcome) in NO_ORGANIZATION {
            assert_eq!(outcome_of(all.get(url)).await, [outcome], "{url}");
        }
        let one = OfficeRndAuthLayer::new(ScriptedProvider::new());
        let (_socket, address) = closed_port();
        for client in [all, client().with(one).build()] {
            let skipped = client.get(format!("http://{address}/"));
            let skipped = skipped.with_extension(SkipAuth);
            assert_eq!(outcome_of(skipped).await, ["passed"]);
        }
    }
}
