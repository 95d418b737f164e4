use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use officernd_auth::{BoxError, config::Settings};
use tower::{Layer, ServiceExt};

// The client secret comes from OFFICERND_CLIENT_SECRET, or from a file: client_secret_file = "/run/secrets/officernd"
const FILE: &str = r#"
    client_id = "Kf3xQ9vTz1LmB7cR"
    scopes = ["officernd.api.read"]
    refresh_ahead = "10m"

    [rate_limit]
    requests = 3
    per = "1m"
"#;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Variables override the file: OFFICERND_REFRESH_AHEAD=5m, OFFICERND_RATE_LIMIT__REQUESTS=2
    let settings: Settings = Figment::new()
        .merge(Toml::string(FILE))
        .merge(Env::prefixed("OFFICERND_").split("__").ignore(&["api_url"]))
        .extract()?;
    println!("refreshes {:?} ahead of the expiry", settings.refresh_ahead);

    let client = settings.layer()?.layer(reqwest::Client::new());
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
    println!("{}", client.oneshot(request).await?.status());
    Ok(())
}
