use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use officernd_auth::{BoxError, OfficeRndAuthLayer};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_http::classify::{NeverClassifyEos, ServerErrorsFailureClass};
use tower_http::trace::{ResponseBody, TraceLayer};

// The trace layer changes the type of the response body.
type Traced = ResponseBody<Incoming, NeverClassifyEos<ServerErrorsFailureClass>>;
type Officernd = BoxCloneService<Request<Full<Bytes>>, Response<Traced>, BoxError>;

fn client(layer: OfficeRndAuthLayer) -> Result<Officernd, BoxError> {
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_native_roots()?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(ServiceBuilder::new()
        .boxed_clone()
        .timeout(Duration::from_secs(60)) // covers the wait for a token too
        .layer(layer.with_retry()) // replays a request once after a 401
        .layer(TraceLayer::new_for_http()) // sees each try, with the token hidden
        .buffer(64) // makes the limit below shareable
        .rate_limit(400, Duration::from_secs(60)) // counts what is really sent
        .service(Client::builder(TokioExecutor::new()).build(https)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .init();
    let api = std::env::var("OFFICERND_API_URL")?; // https://app.officernd.com, or a proxy of yours
    let provider =
        officernd_auth::HttpTokenProvider::new(officernd_auth::ClientCredentials::from_env()?)?;
    let client = client(
        OfficeRndAuthLayer::builder(provider)
            .allow_origin(&api)
            .build()?,
    )?;

    let request = Request::get(format!("{api}/api/v2/organizations/acme/locations"));
    let response = client.oneshot(request.body(Full::default())?).await?;
    let (status, body) = (response.status(), response.into_body().collect().await?);
    println!("{status}, {} bytes", body.to_bytes().len());
    Ok(())
}
