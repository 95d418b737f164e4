use officernd_auth::{HttpTokenProvider, Settings};
use officernd_auth_store::{RedisStore, SharedTokenProvider};
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let api = std::env::var("OFFICERND_API_URL")?; // https://app.officernd.com
    let settings = Settings::from_env()?;
    let http = HttpTokenProvider::new(settings.credentials()?)?;
    let redis = RedisStore::new(&std::env::var("REDIS_URL")?)?;
    let layer = settings.builder(SharedTokenProvider::new(http, redis)).allow_origin(&api).build()?;
    let mut client = ServiceBuilder::new().layer(layer).service(reqwest::Client::new());

    let url = format!("{api}/api/v2/organizations/acme/locations");
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
    println!("{}", client.ready().await?.call(request).await?.status());
    Ok(())
}
