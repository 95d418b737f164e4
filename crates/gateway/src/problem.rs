//! The gateway's own responses to requests that it could not forward, and their log lines.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse as _, Response};
use http_body_util::LengthLimitError;
use officernd_auth::{BoxError, Error, ErrorKind};
use tower_http::timeout::TimeoutError;

use crate::out::{Unanswered, causes, chain};

/// Logs at most one line for each cause in this time, and counts the others.
const LOG_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn problem(status: StatusCode, what: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": what }))).into_response()
}

/// The failures of the API.
#[derive(Default)]
pub(crate) struct Failures(Mutex<Record>);

#[derive(Default)]
struct Record {
    last: Option<(Instant, String)>,
    /// By cause, of which there are about a dozen: when it was last logged, and how often it was not.
    logged: BTreeMap<&'static str, (Instant, u64)>,
}

impl Failures {
    /// Logs a failure of the API and keeps it as the last one.
    pub(crate) fn record(&self, cause: &'static str, error: String) {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match record.logged.get_mut(cause) {
            Some((at, count)) if now.duration_since(*at) < LOG_EVERY => *count += 1,
            logged => {
                let not_logged = logged.map_or(0, |(_, count)| *count);
                tracing::warn!(error, not_logged, "a request to the API failed");
                record.logged.insert(cause, (now, 0));
            }
        }
        record.last = Some((now, error));
    }

    /// Returns the last failure for `/readyz` and the status page.
    pub(crate) fn last(&self) -> Option<String> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, problem) = record.last.as_ref()?;
        Some(format!("{} s ago: {problem}", at.elapsed().as_secs()))
    }

    /// Returns the response to a request that failed. Logs it, if the library has not.
    pub(crate) fn answer(&self, error: &BoxError) -> Response {
        if let Some(error) = Error::find(error) {
            return no_token(error);
        }
        let is = |is: fn(&(dyn StdError + 'static)) -> bool| causes(error.as_ref()).any(is);
        if is(|error| error.is::<LengthLimitError>()) {
            let what = "the request's body is too large";
            return problem(StatusCode::PAYLOAD_TOO_LARGE, what);
        }
        if is(|error| error.is::<TimeoutError>()) {
            let what = "the request's body stopped arriving";
            return problem(StatusCode::REQUEST_TIMEOUT, what);
        }
        let unanswered = causes(error.as_ref()).find_map(|error| error.downcast_ref());
        let cause = unanswered.map_or("the request failed", |error: &Unanswered| error.0);
        self.record(cause, chain(error.as_ref()));
        let status = match unanswered {
            Some(error) if error.2.is_none() => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        problem(status, &error.to_string())
    }
}

fn no_token(error: &Error) -> Response {
    if error.kind() == ErrorKind::Organization {
        // The error is in the path, so it is the caller's.
        return problem(StatusCode::NOT_FOUND, &error.to_string());
    }
    // Without one, the token may arrive at any time.
    let seconds = error.retry_after_seconds().unwrap_or(1).max(1);
    let response = problem(StatusCode::SERVICE_UNAVAILABLE, &chain(error));
    ([(RETRY_AFTER, seconds.to_string())], response).into_response()
}
