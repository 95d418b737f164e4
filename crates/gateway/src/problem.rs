//! The gateway's own answers to requests that it could not forward.

use std::error::Error as StdError;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use officernd_auth::{BoxError, Error, ErrorKind};

use crate::dashboard::Dashboard;

pub(crate) fn problem(status: StatusCode, what: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": what }))).into_response()
}

/// The answer to a request that failed on its way.
pub(crate) fn failure(dashboard: &Dashboard, error: &BoxError) -> Response {
    if let Some(error) = Error::find(error) {
        return no_token(dashboard, error);
    }
    let (status, what) = if contains::<http_body_util::LengthLimitError>(error) {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large",
        )
    } else if contains::<tower_http::timeout::TimeoutError>(error) {
        (
            StatusCode::REQUEST_TIMEOUT,
            "the request's body stood still",
        )
    } else {
        (
            StatusCode::BAD_GATEWAY,
            "OfficeRnD cannot be reached, or broke off",
        )
    };
    if status == StatusCode::BAD_GATEWAY {
        dashboard.failed(&format!("{what}: {}", root(error)));
    }
    problem(status, what)
}

fn no_token(dashboard: &Dashboard, error: &Error) -> Response {
    if error.kind() == ErrorKind::Organization {
        // The path is the caller's mistake, not a failure of this gateway.
        return problem(StatusCode::NOT_FOUND, &error.to_string());
    }
    dashboard.failed(&format!("no token: {error}"));
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
    if let Some(after) = error.retry_after() {
        // Rounded up: a caller that comes too early fails again.
        let part = u64::from(after.subsec_nanos() > 0);
        let seconds = after.as_secs().saturating_add(part).max(1);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Whether an error of this type is among an error's causes.
fn contains<E: StdError + 'static>(error: &BoxError) -> bool {
    causes(error).any(|cause| cause.is::<E>())
}

fn root(error: &BoxError) -> String {
    causes(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn causes(error: &BoxError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error.as_ref();
    std::iter::successors(Some(first), |&error| error.source())
}
