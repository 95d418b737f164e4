use officernd_auth::OfficeRndAuthLayer;
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let mut client = ServiceBuilder::new()
        .layer(OfficeRndAuthLayer::from_env()?)
        .service(reqwest::Client::new());

    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
    let response = client.ready().await?.call(request).await?;
    println!("{} {}", response.status(), response.text().await?);
    Ok(())
}
