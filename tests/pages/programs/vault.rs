use officernd_auth::credentials::{AppCredentials, CredentialSource};
use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use tower::{Layer, ServiceExt};

/// A secret in Vault's key-value store, version 2.
struct Vault {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl CredentialSource for Vault {
    async fn load(&self) -> Result<AppCredentials, BoxError> {
        let request = self
            .http
            .get(&self.url)
            .header("x-vault-token", &self.token);
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let field = |name: &str| {
            let value = answer["data"]["data"][name].as_str();
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("Vault's secret has no {name}"))
        };
        Ok(AppCredentials::new(
            field("client_id")?,
            field("client_secret")?,
        ))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let vault = Vault {
        http: reqwest::Client::new(),
        url: format!("{}/v1/secret/data/officernd", std::env::var("VAULT_ADDR")?),
        token: std::env::var("VAULT_TOKEN")?,
    };
    // Vault is asked before each token request; the last pair serves while it does not answer.
    let credentials = ClientCredentials::from_source(vault).scope("flex.space.locations.read");
    let layer = OfficeRndAuthLayer::new(HttpTokenProvider::new(credentials)?);

    let client = layer.layer(reqwest::Client::new());
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
    println!("{}", client.oneshot(request).await?.status());
    Ok(())
}
