//! The status page, and the server-sent events that feed it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::App;

/// What the page needs, and nothing beside: no script, style or connection but
/// the gateway's own, and none in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'";

pub(crate) async fn html() -> impl IntoResponse {
    file("text/html; charset=utf-8", include_str!("page/page.html"))
}

pub(crate) async fn css() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(crate) async fn js() -> impl IntoResponse {
    file(
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    )
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, text)
}

/// The state of things now, at each event of the cache, and once a second;
/// until the gateway leaves.
pub(crate) async fn events(State(app): State<App>) -> Response {
    let Ok(place) = Arc::clone(&app.watchers).try_acquire_owned() else {
        let later = [(RETRY_AFTER, "5")];
        let why = "as many as may are watching already\n";
        return (StatusCode::SERVICE_UNAVAILABLE, later, why).into_response();
    };
    let changes = app.cache.subscribe();
    let ended = app.ended.clone();
    let stream = stream::unfold((app, changes, ended, true), move |state| {
        // Free again when the stream is dropped.
        let _place = &place;
        async move {
            let (app, mut changes, mut ended, first) = state;
            if !first {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    _ = changes.changed() => {}
                    _ = ended.wait_for(|ended| *ended) => return None,
                }
            }
            let snapshot = app.board.snapshot(app.cache.status());
            let event = Event::default().json_data(snapshot).unwrap_or_default();
            Some((Ok::<_, Infallible>(event), (app, changes, ended, false)))
        }
    });
    Sse::new(stream).into_response()
}
