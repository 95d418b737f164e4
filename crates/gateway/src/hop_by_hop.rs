//! Which headers go from one hop to the next, and which stay.

use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, COOKIE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER, SET_COOKIE, TRANSFER_ENCODING, VIA,
    X_CONTENT_TYPE_OPTIONS,
};

/// RFC 9110 section 7.6.1, and what older clients send.
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a caller may not decide: the host, the credentials, whether to wait for
/// a 100, the page that asks, and what other programs on this machine keep in a browser,
/// which has no cookies per port.
const FROM_CALLER: [HeaderName; 6] = [HOST, AUTHORIZATION, EXPECT, COOKIE, ORIGIN, REFERER];

/// These contradict the request line, which the gateway has checked.
const OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// These speak to a browser about the gateway's own origin.
const FROM_UPSTREAM: [&str; 8] = [
    "alt-svc",
    "clear-site-data",
    "nel",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "strict-transport-security",
];

/// What a browser may do with an answer of the API: nothing. HTML from upstream
/// must not run as a page of this machine.
const POLICY: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// Removes from a request what must not reach OfficeRnD.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in FROM_CALLER {
        headers.remove(name);
    }
    for name in OVERRIDES {
        headers.remove(name);
    }
    // Fetch metadata and client hints are a browser's.
    remove_prefixed(headers, &["proxy-", "sec-"]);
}

/// Removes from an answer what must not reach the caller, and keeps a browser
/// from using it as a page.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(SET_COOKIE);
    for name in FROM_UPSTREAM {
        headers.remove(name);
    }
    remove_prefixed(headers, &["access-control-", "proxy-"]);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    let same_origin = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", same_origin);
}

/// Removes the known hop-by-hop headers and those that `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // As bytes: a name that is not text must not hide those beside it.
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    // RFC 9112 section 6.3: the chunks decide. A length beside them would cut
    // them off, or hide a second message.
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

fn remove_prefixed(headers: &mut HeaderMap, prefixes: &[&str]) {
    let prefixed = |name: &&HeaderName| {
        let name = name.as_str();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let found: Vec<HeaderName> = headers.keys().filter(prefixed).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// RFC 9110 section 7.6.3: `Via` shows a loop.
pub(crate) fn has_passed(headers: &HeaderMap, own: &HeaderValue) -> bool {
    let mut hops = headers
        .get_all(VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    hops.any(|hop| hop.trim_ascii() == own)
}

/// RFC 9112 section 6.3: a request has a body when one of the two says so.
pub(crate) fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Whether a path has dot segments, or what a server may take for them: `%2e`,
/// `%2f`, a backslash, a parameter. Servers disagree on `/api/../`, so it is
/// refused.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    let plain = path.to_ascii_lowercase();
    let plain = plain.replace("%2e", ".").replace("%2f", "/");
    let plain = plain.replace("%5c", "/").replace("%3b", ";");
    let mut segments = plain.split(['/', '\\']);
    segments.any(|segment| {
        let name = segment.split(';').next();
        matches!(name, Some("." | ".."))
    })
}
