use officernd_auth::{BoxError, OfficeRndAuthLayer};
use reqwest_middleware::ClientBuilder;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(OfficeRndAuthLayer::from_env()?)
        .build();
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    println!("{}", client.get(url).send().await?.status());
    Ok(())
}
