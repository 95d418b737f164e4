use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

pub(crate) type Reply = Response<Full<Bytes>>;

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, JSON, body.into())
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Reply {
    reply(status, TEXT, Bytes::from_static(body.as_bytes()))
}

pub(crate) fn garbage() -> Reply {
    let page = "<!doctype html><html><title>Sign in</title><body>Please sign in.</body></html>";
    reply(
        StatusCode::OK,
        "text/html; charset=utf-8",
        Bytes::from_static(page.as_bytes()),
    )
}

/// Returns a fault's response, without the headers that frame its body.
pub(crate) fn scripted(status: u16, headers: &[(String, String)], body: Bytes) -> Reply {
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

/// Returns 500 for a number that is not a final status, such as 1xx.
fn final_status(status: u16) -> StatusCode {
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
