use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

pub(super) type Reply = Response<Full<Bytes>>;

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// In place of an answer: cut the connection.
#[derive(Debug)]
pub(super) struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulator cuts this connection")
    }
}

impl std::error::Error for Reset {}

pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, JSON, body.into())
}

pub(super) fn text(status: StatusCode, body: &'static str) -> Reply {
    reply(status, TEXT, Bytes::from_static(body.as_bytes()))
}

pub(super) fn garbage() -> Reply {
    let page = "<!doctype html><html><title>Sign in</title><body>Please sign in.</body></html>";
    reply(
        StatusCode::OK,
        "text/html; charset=utf-8",
        Bytes::from_static(page.as_bytes()),
    )
}

/// A fault's answer, less what would break the server's own framing.
pub(super) fn scripted(status: u16, headers: &[(String, String)], body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = final_status(status);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            reply.headers_mut().append(name, value);
        }
    }
    reply.headers_mut().remove(CONTENT_LENGTH);
    reply.headers_mut().remove(TRANSFER_ENCODING);
    reply
}

/// 500 for what is not the status of an answer, 1xx among it.
pub(super) fn final_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}
