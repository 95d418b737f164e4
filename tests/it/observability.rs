//! The names, levels, fields and labels on docs/observability.md are those of a running layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use officernd_auth::credentials::AppCredentials;
use officernd_auth::fleet::StoreStatus;
use officernd_auth::testing::{ManualClock, MemoryStore, ScriptedProvider, Step};
use officernd_auth::{
    ClientCredentials, ErrorKind, FetchContext, HttpTokenProvider, OfficeRndAuthLayer, RateLimit,
    SharedTokenProvider, SkipAuth, TokenCache, TokenProvider, TokenStatus,
};
use officernd_simulator::{Fault, Simulator};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::leaks::Page;
use crate::stack::{URL, answer, app_of, get, next, over_mock, send, settle};
use crate::store::Meddler;

const PAGE: &str = include_str!("../../docs/observability.md");

/// The cells of each row whose first cell is a name of ours.
fn rows(prefix: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, cells @ .., _] = &cells[..] else {
            continue;
        };
        let name = name.trim_matches('`');
        if name.starts_with(prefix) {
            assert!(rows.insert(name, cells.to_vec()).is_none(), "{name} twice");
        }
    }
    rows
}

/// The words between backticks.
fn ticked(cell: &str) -> BTreeSet<String> {
    let words = cell.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// Some events are rare: the code has no name that the page has not.
#[test]
fn the_names_in_the_code_are_the_names_on_the_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/observability");
    let files = fs::read_dir(folder).unwrap();
    let code: String = files
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let names = code
        .split('"')
        .filter(|text| text.starts_with("officernd_auth.") || text.starts_with("officernd_auth_"));
    let on_page = rows("officernd_auth").into_keys();
    assert_eq!(names.collect::<BTreeSet<_>>(), on_page.collect());
}

#[test]
fn the_fields_of_the_status_are_on_the_page() {
    let shared = SharedTokenProvider::new(ScriptedProvider::new(), MemoryStore::new());
    let store = serde_json::to_value::<StoreStatus>(shared.status()).unwrap();
    let cache = TokenCache::new(shared);
    let status = serde_json::to_value::<TokenStatus>(cache.status()).unwrap();
    for status in [status, store] {
        for field in status.as_object().unwrap().keys() {
            assert!(PAGE.contains(&format!("\n| `{field}` |")), "{field}");
        }
    }
}

/// Notes the level and the fields of each span and event of ours.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<String, Noted>>>);

/// A level, and the names of fields.
type Noted = (String, BTreeSet<String>);

impl Notes {
    fn note(&self, metadata: &Metadata<'_>) {
        if metadata.name().starts_with("officernd_auth") {
            let fields = metadata.fields().iter();
            let fields = fields.map(|field| field.name().to_owned());
            let fields = fields.filter(|field| field != "message").collect();
            let noted = (metadata.level().to_string(), fields);
            self.0
                .lock()
                .unwrap()
                .insert(metadata.name().to_owned(), noted);
        }
    }
}

impl<S: Subscriber> Layer<S> for Notes {
    fn on_new_span(&self, span: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.note(span.metadata());
    }
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.note(event.metadata());
    }
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
    send(&mut client, get("https://evil.example/"))
        .await
        .unwrap_err();
    // A provider that panics, and one that fails.
    provider.push(Step::Panic);
    provider.push(Step::Fail(ErrorKind::Transport));
    provider.push(Step::Fail(ErrorKind::Transport));
    cache.refresh().await.unwrap_err();
    // Waits without a result; leaves.
    tokio::time::sleep(Duration::from_secs(7200)).await;
    provider.push(Step::Fail(ErrorKind::Denied));
    send(&mut client, get(URL)).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(7200)).await;
    provider.push(Step::Hang);
    let left = tokio::time::timeout(Duration::from_secs(1), send(&mut client, get(URL))).await;
    left.unwrap_err();
    // The rate limit is spent.
    let none = RateLimit::new(0, Duration::from_secs(60));
    let spent = OfficeRndAuthLayer::builder(ScriptedProvider::new()).rate_limit(none);
    let spent = spent.build().unwrap();
    spent.cache().token().await.unwrap_err();
    a_store_helps_and_fails().await;
    a_clock_is_two_hours_ahead().await;
}

async fn a_clock_is_two_hours_ahead() {
    let (endpoint, store) = (ScriptedProvider::new(), MemoryStore::new());
    let shared = || SharedTokenProvider::new(endpoint.clone(), store.clone());
    TokenCache::new(shared()).token().await.unwrap();
    let clock = ManualClock::new();
    clock.advance_wall(Duration::from_secs(7200));
    let layer = OfficeRndAuthLayer::builder(shared()).clock(clock).build();
    layer.unwrap().cache().token().await.unwrap();
    assert_eq!(endpoint.calls(), 2);
}

/// A token from the endpoint, from a sibling, past an entry that has been
/// garbled, and past a store that hangs and comes back.
async fn a_store_helps_and_fails() {
    let (endpoint, model) = (ScriptedProvider::new(), MemoryStore::new());
    let store = Meddler::over(model.clone(), |_| ());
    let garbled = Meddler::over(model, Vec::clear);
    for store in [&store, &store, &garbled] {
        let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
        TokenCache::new(provider).token().await.unwrap();
    }
    let cache = TokenCache::new(SharedTokenProvider::new(endpoint, store.clone()));
    store.hang(true);
    cache.token().await.unwrap();
    store.hang(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    cache.refresh().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn spans_and_events_have_the_levels_and_fields_of_the_page() {
    let notes = Notes::default();
    // While tracing knows of one subscriber only, a callsite that another
    // test's thread meets first is off for good.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::registry().with(notes.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    everything_happens().await;
    tokio::time::resume();
    a_provider_complains().await;

    let noted = notes.0.lock().unwrap().clone();
    let page = rows("officernd_auth.");
    for (name, (level, fields)) in &noted {
        let row = &page[name.as_str()];
        assert_eq!(row[0], level, "{name}");
        assert_eq!(&ticked(row[1]), fields, "{name}");
    }
    let silent = page.keys().filter(|name| !noted.contains_key(**name));
    // A fetch that comes back late; a misspelled variable, which config.rs sets in a process of its own.
    let others = [
        "officernd_auth.refresh_abandoned",
        "officernd_auth.unknown_variable",
    ];
    assert_eq!(silent.copied().collect::<Vec<_>>(), others);
}

#[tokio::test]
async fn a_token_request_is_a_client_span_without_the_query() {
    let page = Page::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(page.clone())
        .finish();
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let officernd = Simulator::start().await.unwrap();
    let url = format!("{}?key=sesame", officernd.token_url());
    let provider = HttpTokenProvider::new(app_of(&officernd).token_url(url)).unwrap();
    provider.fetch(FetchContext::default()).await.unwrap();
    officernd.token_faults().next(1, Fault::Status(503));
    let failed = provider.fetch(FetchContext::default()).await;
    assert!(failed.is_err());
    let span_of_refresh = async |provider: ScriptedProvider| {
        let _ = TokenCache::new(provider).token().await;
        let text = page.text();
        let mut refreshes = text.lines().filter(|line| line.contains("auth.refresh{"));
        refreshes.next_back().unwrap().to_owned()
    };
    let denied = ScriptedProvider::new();
    denied.push(Step::Fail(ErrorKind::Denied));
    let span = span_of_refresh(denied).await;
    assert!(span.contains("otel.status_code=\"ERROR\""), "{span}");
    let span = span_of_refresh(ScriptedProvider::new()).await;
    assert!(
        span.contains("outcome=\"ok\"") && !span.contains("ERROR"),
        "{span}"
    );

    let text = page.text();
    let spans = text.lines().filter(|line| line.contains("token_request"));
    let spans: Vec<_> = spans.collect();
    let full = format!("url.full={}", officernd.token_url());
    let port = format!("server.port={}", officernd.addr().port());
    let host = "server.address=\"127.0.0.1\"";
    for part in [
        "otel.kind=\"client\"",
        "http.request.method=\"POST\"",
        host,
        &full,
        &port,
    ] {
        assert!(
            spans.iter().all(|span| span.contains(part)),
            "no {part} in {text}"
        );
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
#[tokio::test(start_paused = true)]
async fn a_scrape_has_the_metrics_of_the_page() {
    let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let guard = metrics::set_default_local_recorder(&prometheus);
    officernd_auth::observability::describe_metrics();
    everything_happens().await;
    drop(guard);

    let scrape = prometheus.handle().render();
    let lines_of = |start: &str| {
        let lines = scrape.lines().filter_map(|line| line.strip_prefix(start));
        lines.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let mut types = BTreeSet::new();
    let mut described = BTreeSet::new();
    for (name, row) in rows("officernd_auth_") {
        // The exporter shows a histogram as a summary.
        types.insert(format!("{name} {}", row[0].replace("histogram", "summary")));
        described.insert(name.to_owned());
        let unit = if name.ends_with("_seconds") {
            "seconds"
        } else {
            "count"
        };
        assert_eq!(row[1], unit, "{name}");
        let labels = lines_of(&format!("{name}{{"));
        let labels = labels
            .iter()
            .flat_map(|line| line.split_once('}').unwrap().0.split(','));
        let labels = labels.map(|label| label.split_once('=').unwrap());
        let labels: BTreeSet<_> = labels.filter(|(label, _)| *label != "quantile").collect();
        let names: BTreeSet<String> = labels
            .iter()
            .map(|(label, _)| (*label).to_owned())
            .collect();
        assert_eq!(names, ticked(row[2]), "{name}");
        for (label, value) in labels {
            let value = value.trim_matches('"');
            assert!(
                PAGE.contains(&format!("`{value}`")),
                "{name} {label} {value}"
            );
        }
    }
    assert_eq!(lines_of("# TYPE "), types);
    let helped = lines_of("# HELP ");
    let helped = helped
        .iter()
        .map(|line| line.split_once(' ').unwrap().0.to_owned());
    assert_eq!(helped.collect::<BTreeSet<_>>(), described);
    for line in [
        "officernd_auth_requests_total{outcome=\"hit\"} 2",
        "officernd_auth_requests_total{outcome=\"waited\"} 1",
        "officernd_auth_requests_total{outcome=\"failed\"} 1",
        "officernd_auth_requests_total{outcome=\"refused\"} 1",
        "officernd_auth_requests_total{outcome=\"passed\"} 1",
        "officernd_auth_requests_total{outcome=\"left\"} 1",
        "officernd_auth_waiting_requests 0",
        "officernd_auth_token_rejections_total 1",
        "officernd_auth_refreshes_total{cause=\"manual\",outcome=\"lost\"} 1",
        "officernd_auth_refreshes_total{cause=\"rejected\",outcome=\"ok\"} 1",
        "officernd_auth_store_refreshes_total{source=\"taken\"} 1",
        "officernd_auth_store_refreshes_total{source=\"direct\"} 1",
        "officernd_auth_store_failures_total{operation=\"claim\"} 1",
    ] {
        assert!(scrape.contains(line), "no {line} in {scrape}");
    }
}
