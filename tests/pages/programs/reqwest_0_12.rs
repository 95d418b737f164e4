use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let api = std::env::var("OFFICERND_API_URL")?; // https://app.officernd.com, or a proxy of yours
    let layer =
        OfficeRndAuthLayer::builder(HttpTokenProvider::new(ClientCredentials::from_env()?)?)
            .allow_origin(&api)
            .build()?;

    let http = reqwest::Client::new();
    let http = service_fn(move |request: http::Request<reqwest::Body>| {
        let http = http.clone();
        async move {
            Ok::<_, BoxError>(http::Response::from(
                http.execute(request.try_into()?).await?,
            ))
        }
    });
    let client = layer.layer(http);

    let request = http::Request::get(format!("{api}/api/v2/organizations/acme/locations"));
    let response = client
        .oneshot(request.body(reqwest::Body::default())?)
        .await?;
    println!("{}", response.status());
    Ok(())
}
