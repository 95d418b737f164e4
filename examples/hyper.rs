//! The layer over hyper-util's client: three requests, one token request. For https, see the cookbook.

#![expect(clippy::print_stdout, reason = "an example prints what it did")]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
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
        .layer(layer)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let path = format!("/api/v2/organizations/{}/locations", officernd.org_slug());
    for _ in 0..3 {
        let request =
            Request::get(format!("{}{path}", officernd.url())).body(Empty::<Bytes>::new())?;
        let response = client.ready().await?.call(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("GET {path}  {status}  {} bytes", body.len());
        assert!(status.is_success());
    }

    println!("3 requests, {} token request", officernd.token_requests());
    assert_eq!(officernd.token_requests(), 1);
    Ok(())
}
