//! An axum service with a client in its state and a readiness probe. The token endpoint fails twice; the service
//! becomes ready without a request, because its cache keeps itself warm.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use officernd_auth::{
    BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuth, OfficeRndAuthLayer, TokenCache,
    TokenStatus,
};
use officernd_simulator::{Fault, Simulator};
use tower::{Layer as _, ServiceExt as _};

#[derive(Clone)]
struct App {
    officernd: OfficeRndAuth<reqwest::Client>,
    tokens: TokenCache,
    locations: reqwest::Url,
}

async fn locations(State(app): State<App>) -> Result<String, StatusCode> {
    let request = reqwest::Request::new(reqwest::Method::GET, app.locations);
    let response = app.officernd.oneshot(request).await;
    let response = response.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    response.text().await.map_err(|_| StatusCode::BAD_GATEWAY)
}

/// Returns 200 while a usable token is cached.
async fn ready(State(app): State<App>) -> (StatusCode, Json<TokenStatus>) {
    let status = app.tokens.status();
    let code = match status.has_token() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(status))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let officernd = Simulator::start().await?;
    officernd.token_faults().next(2, Fault::Status(503));
    // In production the credentials are `ClientCredentials::from_env()?`.
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
        .allow_origin(officernd.url())
        .keep_warm(true)
        .build()?;
    let (url, slug) = (officernd.url(), officernd.org_slug());
    let app = App {
        officernd: layer.layer(reqwest::Client::new()),
        tokens: layer.cache().clone(),
        locations: format!("{url}/api/v2/organizations/{slug}/locations").parse()?,
    };
    let tokens = app.tokens.clone();
    let router = Router::new()
        .route("/locations", get(locations))
        .route("/readyz", get(ready))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let service = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    // Fetches the token while the service already runs: the probe keeps traffic away until a token is cached.
    tokio::spawn(async move { tokens.warm_up().await });

    loop {
        let code = reqwest::get(format!("{service}/readyz")).await?.status();
        println!("GET /readyz     {code}");
        if code.is_success() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(officernd.api_requests(), 0);
    let response = reqwest::get(format!("{service}/locations")).await?;
    println!("GET /locations  {}", response.status());
    assert!(response.status().is_success());
    println!(
        "ready before the first request, after {} token requests",
        officernd.token_requests()
    );
    Ok(())
}
