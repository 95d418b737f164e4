//! docs/observability.md is true: what a provider with a store emits is listed there, and what is
//! listed there is in the code.

use officernd_auth::testing::{ManualClock, ScriptedProvider};
use officernd_auth::{OfficeRndAuthLayer, TokenCache};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::MemoryStore;
use testkit::page::{Events, Metrics, Page};
use tokio::time::sleep;

use crate::sharing::Meddler;
use crate::support::s;

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

/// A token from the endpoint, from a sibling, past an entry that has been garbled or whose
/// time is over by one clock, and past a store that hangs and comes back.
async fn everything_happens() {
    let (endpoint, model) = (ScriptedProvider::new(), MemoryStore::new());
    let store = Meddler::over(model.clone(), |_| ());
    let garbled = Meddler::over(model.clone(), Vec::clear);
    for store in [&store, &store, &garbled] {
        let provider = SharedTokenProvider::new(endpoint.clone(), store.clone());
        TokenCache::new(provider).token().await.unwrap();
    }
    let cache = TokenCache::new(SharedTokenProvider::new(endpoint.clone(), store.clone()));
    store.hang(true);
    cache.token().await.unwrap();
    store.hang(false);
    sleep(s(10)).await;
    cache.refresh().await.unwrap();

    let clock = ManualClock::new();
    clock.advance_wall(s(7200));
    let shared = SharedTokenProvider::new(endpoint.clone(), model);
    let layer = OfficeRndAuthLayer::builder(shared).clock(clock).build();
    let calls = endpoint.calls();
    layer.unwrap().cache().token().await.unwrap();
    assert_eq!(endpoint.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn events_have_the_levels_and_fields_of_the_page() {
    let events = Events::default();
    // While tracing knows of one subscriber only, a callsite that another
    // test's thread meets first is off for good.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(events.clone());
    everything_happens().await;
    assert_eq!(PAGE.compare_events(&events), Vec::<&str>::new());
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn metrics_have_the_types_units_and_labels_of_the_page() {
    let metrics = Metrics::default();
    let guard = metrics::set_default_local_recorder(&metrics);
    officernd_auth_store::describe_metrics();
    everything_happens().await;
    drop(guard);

    PAGE.compare_metrics(&metrics);
    assert_eq!(
        metrics.values("officernd_auth_store_refreshes_total", "source"),
        ["direct", "fetched", "taken"]
    );
}
