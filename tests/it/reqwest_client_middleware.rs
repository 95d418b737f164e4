//! The layer as a middleware of reqwest-middleware's client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Extensions;
use officernd_auth::organizations::{OrganizationSlug, OrganizationsLayer};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{Error, ErrorKind, OfficeRndAuthLayer, SkipAuth, StaticToken};
use officernd_simulator::Simulator;
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};

use crate::raw::closed_port;
use crate::support::simulated_layer;

fn client(layer: OfficeRndAuthLayer) -> ClientWithMiddleware {
    ClientBuilder::new(Client::new()).with(layer).build()
}

/// The URL of a path that the simulator serves.
fn locations(simulator: &Simulator) -> String {
    let slug = simulator.org_slug();
    format!("{}/api/v2/organizations/{slug}/locations", simulator.url())
}

/// Answers with the token that it sees, and counts the requests.
#[derive(Clone, Default)]
struct Echo(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for Echo {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let token = request.headers().get("authorization");
        let token = token.map_or("none", |value| value.to_str().unwrap());
        Ok(http::Response::new(token.to_owned()).into())
    }
}

#[tokio::test]
async fn requests_carry_the_token_and_a_401_is_replayed() {
    let simulator = Simulator::start().await.unwrap();
    let client = client(simulated_layer(&simulator));
    let get = || client.get(locations(&simulator)).send();
    assert_eq!(get().await.unwrap().status(), 200);
    simulator.revoke_all();
    assert_eq!(get().await.unwrap().status(), 200);
    assert_eq!(simulator.token_requests(), 2);
    assert_eq!(simulator.api_requests(), 3);
}

#[tokio::test]
async fn a_foreign_origin_is_this_crates_error_and_nothing_is_sent() {
    let echo = Echo::default();
    let client = ClientBuilder::new(Client::new())
        .with(OfficeRndAuthLayer::new(ScriptedProvider::new()))
        .with(echo.clone())
        .build();
    let error = client
        .get("https://evil.example/")
        .send()
        .await
        .unwrap_err();
    let found = Error::find_in(&error).unwrap();
    assert_eq!(found.kind(), ErrorKind::ForeignOrigin);
    assert!(error.to_string().contains("did not send"), "{error}");
    assert_eq!(echo.0.load(Ordering::SeqCst), 0);
    let response = client
        .get("https://app.officernd.com/")
        .send()
        .await
        .unwrap();
    assert_eq!(response.text().await.unwrap(), "Bearer scripted-1");
}

#[tokio::test]
async fn an_error_of_the_client_below_stays_what_it_was() {
    let (_socket, address) = closed_port();
    let url = format!("http://{address}");
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
        .allow_origin(&url)
        .build()
        .unwrap();
    let error = client(layer).get(&url).send().await.unwrap_err();
    assert!(Error::find_in(&error).is_none());
    let reqwest_middleware::Error::Reqwest(error) = error else {
        panic!("not reqwest's: {error:?}");
    };
    assert!(error.is_connect());
}

#[tokio::test]
async fn the_extensions_of_a_request_skip_the_layer_or_select_an_organization() {
    let token = StaticToken::new("of-acme").unwrap();
    let acme = OfficeRndAuthLayer::new(token);
    let layer = OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]));
    let client = ClientBuilder::new(Client::new())
        .with(layer)
        .with(Echo::default())
        .build();
    let get = || client.get("https://app.officernd.com/api/v2/users/me");
    let slug = OrganizationSlug::new("acme").unwrap();
    let response = get().with_extension(slug).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "Bearer of-acme");
    let response = get().with_extension(SkipAuth).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "none");
    let error = get().send().await.unwrap_err();
    let found = Error::find_in(&error).unwrap();
    assert_eq!(found.kind(), ErrorKind::Organization);
    let unknown = OrganizationSlug::new("globex").unwrap();
    let error = get().with_extension(unknown).send().await.unwrap_err();
    let found = Error::find_in(&error).unwrap();
    assert_eq!(found.retry_after_seconds(), Some(60));
}
