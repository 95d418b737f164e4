//! Asks each route once, as a client does.

use std::time::Duration;

use officernd_auth::BoxError;

/// Route, status, and what the answer has in it.
const ROUTES: [(&str, u16, &str); 8] = [
    ("/healthz", 200, "ok"),
    (
        "/api/v2/organizations/simulated-org/locations",
        200,
        "Main Street",
    ),
    ("/readyz", 200, "\"generation\":1"),
    ("/metrics", 200, "officernd_auth_requests_total"),
    ("/", 200, "OfficeRnD gateway"),
    ("/page.css", 200, "color"),
    ("/page.js", 200, "EventSource"),
    ("/elsewhere", 404, ""),
];

pub(crate) async fn check(url: &str) -> Result<(), BoxError> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    for (path, status, part) in ROUTES {
        let response = http.get(format!("{url}{path}")).send().await?;
        let answered = response.status().as_u16();
        let text = response.text().await?;
        if answered != status || !text.contains(part) || text.contains("Bearer ") {
            return Err(format!("{path} is answered {answered}: {text}").into());
        }
        tracing::info!(path, status, "checked");
    }
    let mut events = http.get(format!("{url}/events")).send().await?;
    let event = events.chunk().await?.unwrap_or_default();
    if !event.starts_with(b"data: {") {
        return Err(format!("/events begins with {event:?}").into());
    }
    tracing::info!(path = "/events", "checked");
    Ok(())
}
