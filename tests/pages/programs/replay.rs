use std::time::Duration;

use officernd_auth::{BoxError, OfficeRndAuth, OfficeRndAuthLayer, RetryUnauthorized};
use tower::{ServiceBuilder, ServiceExt, retry::Retry, timeout::Timeout};

/// The client of one organization. Clones share the token.
#[derive(Clone)]
struct Locations {
    client: Timeout<Retry<RetryUnauthorized, OfficeRndAuth<reqwest::Client>>>,
    organization: String,
}

impl Locations {
    fn new(layer: OfficeRndAuthLayer, organization: &str) -> Self {
        let client = ServiceBuilder::new()
            .timeout(Duration::from_secs(60))
            .layer(layer.with_retry())
            .service(reqwest::Client::new());
        Self {
            client,
            organization: organization.to_owned(),
        }
    }

    async fn list(&self) -> Result<reqwest::Response, BoxError> {
        let base = "https://app.officernd.com/api/v2/organizations";
        let url = format!("{base}/{}/locations", self.organization).parse()?;
        self.client
            .clone()
            .oneshot(reqwest::Request::new(reqwest::Method::GET, url))
            .await
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let locations = Locations::new(OfficeRndAuthLayer::from_env()?, "acme");
    let response = locations.list().await?;
    println!("{} {}", response.status(), response.text().await?);
    Ok(())
}
