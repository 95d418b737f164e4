use officernd_auth::OfficeRndAuthLayer;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};
use tokio::sync::Mutex;
use tower::{BoxError, Layer, ServiceExt, service_fn};

/// The layer as a middleware: origin check, replay after a 401 and all.
struct Officernd(OfficeRndAuthLayer);

#[async_trait::async_trait]
impl Middleware for Officernd {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let extensions = &Mutex::new(extensions);
        let rest = service_fn(move |request| {
            let next = next.clone();
            async move { next.run(request, &mut **extensions.lock().await).await }
        });
        let response = self
            .0
            .clone()
            .with_retry()
            .layer(rest)
            .oneshot(request)
            .await;
        response.map_err(|error| Error::Middleware(anyhow::Error::from_boxed(error)))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(Officernd(OfficeRndAuthLayer::from_env()?))
        .build();
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    println!("{}", client.get(url).send().await?.status());
    Ok(())
}
