use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use officernd_auth::{Error, ErrorKind, OfficeRndAuthLayer};
use tower::{BoxError, Layer, ServiceExt};

/// A failed request, as an answer of this service.
struct Failed(BoxError);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Some(error) = Error::find(&self.0) else {
            return (StatusCode::BAD_GATEWAY, "OfficeRnD did not answer").into_response();
        };
        match error.kind() {
            // A mistake in this program.
            ErrorKind::ForeignOrigin | ErrorKind::InsecureOrigin => {
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
            // No token at the moment; the caller may come back.
            _ => {
                let seconds = error.retry_after_seconds().unwrap_or(1);
                let retry_after = [("retry-after", seconds.to_string())];
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    retry_after,
                    error.to_string(),
                )
                    .into_response()
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let client = OfficeRndAuthLayer::from_env()?.layer(reqwest::Client::new());
    let locations = move || async move {
        let url = "https://app.officernd.com/api/v2/organizations/acme/locations";
        let request = reqwest::Request::new(
            reqwest::Method::GET,
            url.parse().map_err(|_| Failed("not a URL".into()))?,
        );
        let response = client.oneshot(request).await.map_err(Failed)?;
        response.text().await.map_err(|error| Failed(error.into()))
    };
    let listener = tokio::net::TcpListener::bind(std::env::var("LISTEN")?).await?; // 0.0.0.0:8080
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/locations", get(locations))).await?;
    Ok(())
}
