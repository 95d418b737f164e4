//! The layer over `reqwest::Client`: replays a request whose token was revoked.

#![expect(clippy::print_stdout, reason = "an example prints what it did")]

use http::Method;
use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use officernd_simulator::Simulator;
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // In production this is `OfficeRndAuthLayer::from_env()?`.
    let officernd = Simulator::start().await?;
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
        .allow_origin(officernd.url())
        .build()?;

    let mut client = ServiceBuilder::new()
        .layer(layer.with_retry())
        .service(reqwest::Client::new());

    let path = format!("/api/v2/organizations/{}/members", officernd.org_slug());
    for round in 0..4 {
        if round == 2 {
            officernd.revoke_all();
            println!("-- token revoked");
        }
        let url = format!("{}{path}", officernd.url()).parse()?;
        let request = reqwest::Request::new(Method::GET, url);
        let response = client.ready().await?.call(request).await?;
        println!("GET {path}  {}", response.status());
        assert!(response.status().is_success());
    }

    println!(
        "4 requests answered, {} token requests",
        officernd.token_requests()
    );
    assert_eq!(officernd.token_requests(), 2);
    Ok(())
}
