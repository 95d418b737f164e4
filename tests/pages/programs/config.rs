use config::{Config, Environment, File, FileFormat};
use officernd_auth::{BoxError, config::Settings};
use tower::{Layer, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let file = r#"
        [officernd]
        client_id = "Kf3xQ9vTz1LmB7cR"
        scopes = "flex.space.locations.read"
        keep_warm = true
    "#;
    let settings: Settings = Config::builder()
        .add_source(File::from_str(file, FileFormat::Toml))
        // APP__OFFICERND__CLIENT_SECRET
        .add_source(
            Environment::with_prefix("APP")
                .prefix_separator("__")
                .separator("__"),
        )
        .build()?
        .get("officernd")?;

    let client = settings.layer()?.layer(reqwest::Client::new());
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
    println!("{}", client.oneshot(request).await?.status());
    Ok(())
}
