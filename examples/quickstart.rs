//! Sends 200 requests a second for ten seconds to a simulator, where tokens live 3 s and all are revoked once. Exits
//! with 1 if a request fails.
//!
//! With `OFFICERND_CLIENT_ID`, `OFFICERND_CLIENT_SECRET` and `OFFICERND_SCOPES` set, it sends one request to the real
//! service instead, and lists the locations of the organization in `OFFICERND_ORG_SLUG`.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;

use officernd_auth::{
    BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, RateLimit,
};
use officernd_simulator::Simulator;
use reqwest::{Client, Method, Request, StatusCode};
use tokio::time::interval;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if std::env::var_os("OFFICERND_CLIENT_ID").is_some() {
        return real_service().await;
    }
    // Five token requests a minute are not enough for tokens of 3 s, so the simulator allows more, and so does the
    // layer.
    let limit = (30, Duration::from_secs(60));
    let officernd = Simulator::builder()
        .token_life(Duration::from_secs(3))
        .rate_limit(limit.0, limit.1)
        .start()
        .await?;
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
        .allow_origin(officernd.url())
        .rate_limit(RateLimit::new(limit.0, limit.1))
        .build()?;
    let cache = layer.cache().clone();
    let client = ServiceBuilder::new()
        .layer(layer.with_retry())
        .service(Client::new());
    let slug = officernd.org_slug();
    let url = format!("{}/api/v2/organizations/{slug}/locations", officernd.url()).parse()?;

    let mut ticks = interval(Duration::from_millis(5));
    let mut requests = tokio::task::JoinSet::new();
    for sent in 1..=2000 {
        ticks.tick().await;
        if sent == 1000 {
            officernd.revoke_all();
            println!("       all tokens revoked");
        }
        if sent % 200 == 0 {
            let (token, seconds) = (cache.status(), sent / 200);
            println!(
                "{seconds:2} s  {sent} requests sent, token {} is {:?}",
                token.generation, token.phase
            );
        }
        requests.spawn(
            client
                .clone()
                .oneshot(Request::new(Method::GET, reqwest::Url::clone(&url))),
        );
    }
    let mut succeeded = 0;
    for result in requests.join_all().await {
        match result {
            Ok(response) if response.status() == StatusCode::OK => succeeded += 1,
            Ok(response) => println!("a request got the status {}", response.status()),
            Err(error) => println!("a request failed: {error}"),
        }
    }
    println!(
        "{succeeded} of 2000 requests succeeded with {} token requests",
        officernd.token_requests()
    );
    if succeeded < 2000 {
        return Err("not all requests succeeded".into());
    }
    Ok(())
}

async fn real_service() -> Result<(), BoxError> {
    let layer = OfficeRndAuthLayer::from_env()?;
    let slug = std::env::var("OFFICERND_ORG_SLUG").map_err(|_| "set OFFICERND_ORG_SLUG too")?;
    let url = format!("https://app.officernd.com/api/v2/organizations/{slug}/locations");
    let request = Request::new(Method::GET, url.parse()?);
    let response = layer.layer(Client::new()).oneshot(request).await?;
    println!("GET {url}  {}", response.status());
    println!("{:#?}", layer.cache().status());
    Ok(response.error_for_status().map(drop)?)
}
