//! An axum handler that calls OfficeRnD through a client in its state.

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::{Method, StatusCode};
use officernd_auth::testing::Simulator;
use officernd_auth::{
    BoxError, ClientCredentials, Error, HttpTokenProvider, OfficeRndAuth, OfficeRndAuthLayer,
    TokenCache, TokenStatus,
};
use tower::{Layer as _, ServiceExt as _};

#[derive(Clone)]
struct App {
    officernd: OfficeRndAuth<reqwest::Client>,
    locations: reqwest::Url,
}

/// What this service answers: the number of bytes that OfficeRnD sent.
async fn locations(State(app): State<App>) -> Result<String, (StatusCode, String)> {
    let request = reqwest::Request::new(Method::GET, app.locations.clone());
    let response = app
        .officernd
        .oneshot(request)
        .await
        .map_err(|error| unavailable(&error))?;
    let status = response.status();
    let body = response
        .bytes()
        .await
        .map_err(|error| unavailable(&error.into()))?;
    Ok(format!("OfficeRnD said {status}, {} bytes", body.len()))
}

/// A missing token is a passing fault of a service behind this one.
fn unavailable(error: &BoxError) -> (StatusCode, String) {
    match Error::find(error) {
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        None => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

async fn ready(State(cache): State<TokenCache>) -> (StatusCode, Json<TokenStatus>) {
    let status = cache.status();
    let code = if status.has_token() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(status))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // In production this is `OfficeRndAuthLayer::from_env()?`.
    let officernd = Simulator::start().await?;
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope("officernd.api.read")
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
        .allow_origin(officernd.url())
        .build()?;
    let slug = officernd.org_slug();
    let locations_url = format!("{}/api/v2/organizations/{slug}/locations", officernd.url());

    let app = App {
        officernd: layer.layer(reqwest::Client::new()),
        locations: locations_url.parse()?,
    };
    let router = Router::new()
        .route("/locations", get(locations))
        .with_state(app)
        .merge(
            Router::new()
                .route("/readyz", get(ready))
                .with_state(layer.cache().clone()),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });

    for (path, expected) in [("/readyz", 503), ("/locations", 200), ("/readyz", 200)] {
        let response = reqwest::get(format!("http://{address}{path}")).await?;
        let status = response.status();
        println!("GET {path}  {status}  {}", response.text().await?);
        assert_eq!(status, expected);
    }
    Ok(())
}
