use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let api = std::env::var("OFFICERND_API_URL")?; // https://app.officernd.com, or a proxy of yours
    let provider = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
    let layer = OfficeRndAuthLayer::builder(provider).allow_origin(&api);

    let https = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots()?;
    let https = https.https_only().enable_http1().build();
    let http = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(https);
    let mut client = ServiceBuilder::new().layer(layer.build()?).service(http);

    let url = format!("{api}/api/v2/organizations/acme/locations");
    let request = http::Request::get(url).body(Empty::new())?;
    let response = client.ready().await?.call(request).await?;
    println!("{}", response.status());
    Ok(())
}
