//! What may go from one hop to the next.

use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue, TRANSFER_ENCODING, VIA,
};

/// RFC 9110 §7.6.1, and what older clients send.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Drops what is meant for this hop only: the known headers, and those that
/// `Connection` names.
pub(crate) fn forget(headers: &mut HeaderMap) {
    // As bytes: one name that is no text must not hide those beside it.
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    // RFC 9112 §6.3: what the chunks say counts, and a length beside them would
    // cut them off, or hide a second message.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Drops what a caller may not say there: whom it takes itself for, on whose
/// behalf it asks, and what other programs on this machine keep in a browser,
/// which has no cookies for a port.
pub(crate) fn forget_caller(headers: &mut HeaderMap) {
    let told = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-");
    let forwarded: Vec<HeaderName> = headers.keys().filter(told).cloned().collect();
    for name in forwarded {
        headers.remove(name);
    }
    // Host is the connector's, Authorization the layer's, and 100 (Continue)
    // has been said here.
    for name in [HOST, AUTHORIZATION, EXPECT, COOKIE, FORWARDED] {
        headers.remove(name);
    }
}

/// RFC 9110 §7.6.3: `Via` is there to find loops by.
pub(crate) fn has_been_here(headers: &HeaderMap, ours: &HeaderValue) -> bool {
    let mut stations = headers
        .get_all(VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    stations.any(|station| station.trim_ascii() == ours)
}

/// RFC 9112 §6.3: a request has a body when one of the two says so.
pub(crate) fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Who resolves `/api/../` first decides what it means; nobody does. Nor what a
/// server may take for it: `%2e`, `%2f`, a backslash, a parameter.
pub(crate) fn has_dots(path: &str) -> bool {
    let plain = path.to_ascii_lowercase();
    let plain = plain.replace("%2e", ".").replace("%2f", "/");
    let plain = plain.replace("%5c", "/").replace("%3b", ";");
    let mut segments = plain.split(['/', '\\']);
    segments.any(|segment| {
        let name = segment.split(';').next();
        matches!(name, Some("." | ".."))
    })
}
