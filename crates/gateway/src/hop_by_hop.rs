//! Which headers the gateway does not forward, and what else a request must not contain.

use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, VIA, X_CONTENT_TYPE_OPTIONS,
};

const VIA_GATEWAY: HeaderValue = HeaderValue::from_static("1.1 officernd-gateway");

/// RFC 9110 section 7.6.1, and what older clients send.
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a caller must not choose: the credentials, the host, 100-continue, what its browser adds, and what
/// some servers prefer to the request line, which the gateway has checked. Cookies belong to other
/// programs on this machine, because browsers share them between ports.
const FROM_CALLER: [&str; 12] = [
    "authorization",
    "cookie",
    "expect",
    "host",
    "origin",
    "referer",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// A browser would apply these to the gateway's own origin.
const FROM_UPSTREAM: [&str; 9] = [
    "alt-svc",
    "clear-site-data",
    "nel",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
];

/// HTML from the API must not run as a page of this machine.
const POLICY: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// Removes from a request what must not reach OfficeRnD, and adds `Via`.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    // `sec-`: fetch metadata and client hints of browsers.
    remove(headers, &FROM_CALLER, &["proxy-", "sec-"]);
    headers.append(VIA, VIA_GATEWAY);
}

/// Removes from a response what must not reach the caller, and keeps browsers from running it. Adds `Via`.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    remove(headers, &FROM_UPSTREAM, &["access-control-", "proxy-"]);
    headers.append(VIA, VIA_GATEWAY);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    let same_origin = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", same_origin);
}

/// Removes the known hop-by-hop headers and those that `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // As bytes: an element that is not UTF-8 must not hide the others.
    let named = elements(headers, CONNECTION).flat_map(HeaderName::from_bytes);
    let named: Vec<HeaderName> = named.collect();
    // RFC 9112 section 6.3: a length beside chunks is ignored, but a server might use it.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in named {
        headers.remove(name);
    }
    remove(headers, &HOP_BY_HOP, &[]);
}

fn remove(headers: &mut HeaderMap, names: &[&str], prefixes: &[&str]) {
    let is_removed = |name: &&HeaderName| {
        let name = name.as_str();
        names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let found: Vec<HeaderName> = headers.keys().filter(is_removed).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Returns `true` if `Via` shows that the request has passed this gateway before.
pub(crate) fn has_passed(headers: &HeaderMap) -> bool {
    elements(headers, VIA).any(|hop| VIA_GATEWAY == hop)
}

/// Returns the elements of a comma-separated header.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    let elements = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    elements.map(<[u8]>::trim_ascii)
}

/// Returns `true` if the request has a body (RFC 9112 section 6.3).
pub(crate) fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Returns `true` if a path has dot segments, even if they are spelled with `%2e`, `%2f`, a backslash or
/// a parameter: servers disagree on what `/api/../` means.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    let plain = path.to_ascii_lowercase();
    let plain = plain.replace("%2e", ".").replace("%2f", "/");
    let plain = plain.replace("%5c", "/").replace("%3b", ";");
    let mut segments = plain.split(['/', '\\']);
    segments.any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}
