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

use crate::admin::Admin;

const INTERVAL: Duration = Duration::from_secs(1);

/// The page loads its own script, style and event stream, and nothing else.
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

/// The gateway's state now, at each change of a token, and once a second; until
/// the gateway leaves.
pub(crate) async fn events(State(admin): State<Admin>) -> Response {
    let Ok(place) = Arc::clone(&admin.watchers).try_acquire_owned() else {
        let later = [(RETRY_AFTER, "5")];
        let why = "too many pages are open\n";
        return (StatusCode::SERVICE_UNAVAILABLE, later, why).into_response();
    };
    let ended = admin.ended.clone();
    let stream = stream::unfold((admin, ended, true), move |state| {
        // Released when the stream is dropped.
        let _place = &place;
        async move {
            let (admin, mut ended, first) = state;
            if !first {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = admin.tokens.changed() => {}
                    _ = ended.wait_for(|ended| *ended) => return None,
                }
            }
            let states = admin.tokens.states();
            let snapshot = admin.dashboard.snapshot(states, admin.is_leaving());
            let event = Event::default().json_data(snapshot).unwrap_or_default();
            Some((Ok::<_, Infallible>(event), (admin, ended, false)))
        }
    });
    let headers = [(X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Sse::new(stream)).into_response()
}
