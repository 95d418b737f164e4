//! docs/observability.md lists exactly the events, metrics and fields that a provider emits.

use officernd_auth::testing::{ManualClock, ScriptedProvider};
use officernd_auth::{OfficeRndAuthLayer, TokenCache};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::MemoryStore;
use testkit::page::{Events, Metrics, Page};
use tokio::time::sleep;

use crate::support::{TestStore, cache, s};

const PAGE: Page = Page(include_str!("../../docs/observability.md"));

#[test]
fn the_names_in_the_code_are_the_names_on_the_page() {
    PAGE.lists_the_names_in(env!("CARGO_MANIFEST_DIR"));
}

#[test]
fn the_fields_of_the_status_are_on_the_page() {
    let shared = SharedTokenProvider::new(ScriptedProvider::new(), MemoryStore::new());
    let status = serde_json::to_value(shared.status()).unwrap();
    PAGE.lists_fields(status.as_object().unwrap().keys());
}

/// Makes the provider emit every event and metric.
async fn emit_everything() {
    let (endpoint, model) = (ScriptedProvider::new(), MemoryStore::new());
    let store = TestStore::altering(&model, |_| ());
    let corrupt = TestStore::altering(&model, Vec::clear);
    for store in [&store, &store, &corrupt] {
        let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
        TokenCache::new(provider).token().await.unwrap();
    }
    let pod = TokenCache::new(SharedTokenProvider::new(endpoint.clone(), store.clone()));
    store.set_delays(s(3600), s(3600));
    pod.token().await.unwrap();
    store.set_delays(s(0), s(0));
    sleep(s(10)).await;
    pod.refresh().await.unwrap();

    let clock = ManualClock::new();
    clock.advance_wall(s(7200));
    let shared = SharedTokenProvider::new(endpoint.clone(), model);
    let ahead = cache(OfficeRndAuthLayer::builder(shared).clock(clock));
    let calls = endpoint.calls();
    ahead.token().await.unwrap();
    assert_eq!(endpoint.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn events_have_the_levels_and_fields_of_the_page() {
    let events = Events::default();
    // With a single subscriber, tracing disables for good each callsite that another test's thread reaches
    // first.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(events.clone());
    emit_everything().await;
    assert_eq!(PAGE.compare_events(&events), Vec::<&str>::new());
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn metrics_have_the_types_units_and_labels_of_the_page() {
    let metrics = Metrics::default();
    let guard = metrics::set_default_local_recorder(&metrics);
    officernd_auth_store::describe_metrics();
    emit_everything().await;
    drop(guard);

    PAGE.compare_metrics(&metrics);
    assert_eq!(
        metrics.values("officernd_auth_store_refreshes_total", "source"),
        ["direct", "fetched", "taken"]
    );
}
