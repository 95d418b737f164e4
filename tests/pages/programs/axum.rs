use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use officernd_auth::{
    BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuth, OfficeRndAuthLayer, TokenCache,
    TokenStatus,
};
use tower::{Layer, ServiceExt};

#[derive(Clone)]
struct App {
    officernd: OfficeRndAuth<reqwest::Client>,
    tokens: TokenCache,
}

async fn locations(State(app): State<App>) -> Result<String, StatusCode> {
    let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
    let request = reqwest::Request::new(
        reqwest::Method::GET,
        url.parse().map_err(|_| StatusCode::NOT_FOUND)?,
    );
    let response = app
        .officernd
        .oneshot(request)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    response.text().await.map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn ready(State(app): State<App>) -> (StatusCode, Json<TokenStatus>) {
    let status = app.tokens.status();
    let code = if status.has_token() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(status))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Without keep_warm, a pod that gets no traffic stays without a token, and so stays unready.
    let layer =
        OfficeRndAuthLayer::builder(HttpTokenProvider::new(ClientCredentials::from_env()?)?)
            .keep_warm(true)
            .build()?;
    if let Err(error) = layer.cache().warm_up().await {
        eprintln!("no token yet: {error}"); // Start all the same: keep_warm goes on trying.
    }
    let tokens = layer.cache().clone();
    let app = App {
        officernd: layer.layer(reqwest::Client::new()),
        tokens,
    };
    let router = Router::new()
        .route("/locations", get(locations))
        .route("/readyz", get(ready))
        .with_state(app);

    let listener = tokio::net::TcpListener::bind(std::env::var("LISTEN")?).await?; // 0.0.0.0:8080
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
