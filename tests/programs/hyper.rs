use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let api = std::env::var("OFFICERND_API_URL")?; // https://app.officernd.com, or your proxy
    let provider = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
    let layer = OfficeRndAuthLayer::builder(provider).allow_origin(&api).build()?;

    let https = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots()?;
    let https = https.https_only().enable_http1().build();
    let mut client = ServiceBuilder::new().layer(layer).service(Client::builder(TokioExecutor::new()).build(https));

    let url = format!("{api}/api/v2/organizations/acme/locations");
    let request = http::Request::get(url).body(http_body_util::Empty::<bytes::Bytes>::new())?;
    println!("{}", client.ready().await?.call(request).await?.status());
    Ok(())
}
