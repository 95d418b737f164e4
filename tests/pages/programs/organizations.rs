use std::collections::HashMap;

use officernd_auth::organizations::Organization;
use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use tower::{Layer, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // An app belongs to one organization, so each organization has credentials of its own.
    let production = HttpTokenProvider::new(ClientCredentials::from_env()?)?;
    let staging = HttpTokenProvider::new(
        ClientCredentials::new(
            std::env::var("STAGING_CLIENT_ID")?,
            std::env::var("STAGING_CLIENT_SECRET")?,
        )
        .scope("flex.space.locations.read")
        .token_url("https://identity-staging.officernd.com/oauth/token"),
    )?;
    // No token of one goes to the service of the other, whatever slug a URL names.
    let production =
        Organization::new(production).restrict_to_origin("https://app.officernd.com")?;
    let staging = Organization::new(staging).restrict_to_origin("https://staging.officernd.com")?;
    let organizations = HashMap::from([
        ("acme".to_owned(), production),
        ("acme-staging".to_owned(), staging),
    ]);

    // The slug in the path selects the token. Each organization has a cache, made when it is first used.
    let layer = OfficeRndAuthLayer::per_organization(organizations)
        .allow_origin("https://staging.officernd.com")
        .build()?;
    let client = layer.layer(reqwest::Client::new());
    for url in [
        "https://app.officernd.com/api/v2/organizations/acme/locations",
        "https://staging.officernd.com/api/v2/organizations/acme-staging/locations",
    ] {
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
        let response = client.clone().oneshot(request).await?;
        println!("{} {url}", response.status());
    }
    Ok(())
}
