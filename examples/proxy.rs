//! A reverse proxy of one screen: callers send plain requests to it, and it
//! sends them to OfficeRnD with the token. `officernd-gateway` in `crates/gateway/`
//! is the same idea as a program for production.
//!
//! ```sh
//! cargo run --example proxy --all-features
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, HOST, RETRY_AFTER, TE, TRANSFER_ENCODING};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use officernd_auth::{
    BoxError, ClientCredentials, Error, HttpTokenProvider, OfficeRndAuth, OfficeRndAuthLayer,
};
use officernd_simulator::Simulator;
use tower::{Layer as _, ServiceExt as _};

#[derive(Clone)]
struct Proxy {
    // For https, give the client the connector of `hyper-rustls`.
    client: OfficeRndAuth<Client<HttpConnector, Body>>,
    upstream: Uri,
}

/// Sends the request on, body and all, as it streams in.
async fn forward(State(proxy): State<Proxy>, mut request: Request) -> Response {
    let mut target = proxy.upstream.into_parts();
    target.path_and_query = request.uri().path_and_query().cloned();
    let Ok(target) = Uri::from_parts(target) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = target;
    // These describe the connection to this proxy, not the one to OfficeRnD.
    for name in [HOST, CONNECTION, TE, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    match proxy.client.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => unavailable(&error),
    }
}

/// Without a token: 503, and when to try again. Otherwise OfficeRnD is away.
fn unavailable(error: &BoxError) -> Response {
    let Some(error) = Error::find(error) else {
        return (StatusCode::BAD_GATEWAY, error.to_string()).into_response();
    };
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response();
    if let Some(wait) = error.retry_after() {
        let seconds = wait.as_secs().saturating_add(1);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // In production: `OfficeRndAuthLayer::from_env()?` and https://app.officernd.com.
    let officernd = Simulator::builder()
        .grant_scopes(["flex.space.locations.read"])
        .start()
        .await?;
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope("flex.space.locations.read")
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
        .allow_origin(officernd.url())
        .build()?;

    let proxy = Proxy {
        client: layer.layer(Client::builder(TokioExecutor::new()).build_http()),
        upstream: officernd.url().parse()?,
    };
    let router = Router::new().fallback(forward).with_state(proxy);
    // Loopback only: every client that can connect has the API.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let here = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let caller = reqwest::Client::builder().no_proxy().build()?;
    let locations = "/api/v2/organizations/simulated-org/locations";
    for _ in 0..3 {
        let response = caller.get(format!("{here}{locations}")).send().await?;
        println!("GET {locations}  {}", response.status());
        assert_eq!(response.status(), StatusCode::OK);
    }
    let direct = caller.get(format!("{}{locations}", officernd.url()));
    assert_eq!(direct.send().await?.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(officernd.token_requests(), 1);
    println!("proved: 3 requests without a token of their own were answered 200 through");
    println!("the proxy with 1 token request; the same request past the proxy was a 401");
    Ok(())
}
