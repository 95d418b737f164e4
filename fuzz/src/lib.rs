//! Properties that hold for any input of the public API. The fuzz targets and `tests/it/fuzz.rs` call these functions.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, StaticToken, TokenProvider as _,
};
use tower::{Layer as _, ServiceExt as _, service_fn};
use url::Url;

/// The name of a fuzz target, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All fuzz targets.
pub const TARGETS: [Target; 4] = [
    ("token_answer", token_answer),
    ("retry_after", retry_after),
    ("origin", origin),
    ("settings", settings),
];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// Fetches a token from an endpoint that returns this response.
fn fetch(status: StatusCode, headers: HeaderMap, body: &[u8]) -> Result<AccessToken, Error> {
    let body = Bytes::copy_from_slice(body);
    let endpoint = service_fn(move |_: Request<Full<Bytes>>| {
        let mut response = Response::new(Full::new(body.clone()));
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        async move { Ok::<_, Infallible>(response) }
    });
    let credentials = ClientCredentials::new("id", "secret").scope("a b");
    match HttpTokenProvider::with_service(credentials, endpoint) {
        Ok(provider) => run(provider.fetch(FetchContext::default())),
        Err(error) => panic!("valid credentials are refused: {error}"),
    }
}

/// Returns the lines of the input that are valid header values.
fn header_lines(name: &'static str, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(100) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}

/// Checks a response to a token request. The first two bytes select the status, the others are the body.
pub fn token_answer(data: &[u8]) {
    let (status, body) = data.split_at(data.len().min(2));
    let status = match status {
        [high, low] => u16::from_be_bytes([*high, *low]) % 500 + 100,
        _ => 200,
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(body.get(..8).unwrap_or_default()) {
        headers.insert("retry-after", value);
    }
    for status in [status, 200] {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        match fetch(status, headers.clone(), body) {
            Ok(token) => {
                assert!((SECOND..=24 * HOUR).contains(&token.expires_in()));
                assert!(token.header_value().is_sensitive());
            }
            Err(error) => {
                if let Some(after) = error.retry_after() {
                    assert!((SECOND..=HOUR).contains(&after));
                }
                // The error does not quote the body.
                let shown = format!("{error} {error:?}");
                let text = String::from_utf8_lossy(body);
                let mut words = text.split(|c: char| !c.is_ascii_graphic());
                let quoted = words.find(|word| word.len() > 24 && shown.contains(word));
                assert_eq!(quoted, None, "{shown}");
            }
        }
    }
}

/// Checks values of `Retry-After`, one per line.
pub fn retry_after(data: &[u8]) {
    let headers = header_lines("retry-after", data);
    let Err(error) = fetch(StatusCode::TOO_MANY_REQUESTS, headers, b"") else {
        panic!("a 429 returned a token");
    };
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    if let Some(after) = error.retry_after() {
        assert!((SECOND..=HOUR).contains(&after), "{after:?}");
    }
}

/// Checks an allowed origin and a URL, on two lines. A URL that gets the token must have an allowed origin in the `url`
/// crate too, which parses URLs like reqwest and browsers.
pub fn origin(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (pattern, target) = text
        .split_once('\n')
        .unwrap_or(("https://example.com", text));
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    // The client below decides where a relative URL goes.
    if uri.scheme().is_none() || uri.authority().is_none() {
        return;
    }
    let builder = || match StaticToken::new("token") {
        Ok(token) => OfficeRndAuthLayer::builder(token),
        Err(error) => panic!("a valid token is refused: {error}"),
    };
    let (layer, added) = match builder().allow_origin(pattern).build() {
        Ok(layer) => (layer, true),
        Err(_) => match builder().build() {
            Ok(layer) => (layer, false),
            Err(error) => panic!("valid settings are refused: {error}"),
        },
    };
    let seen = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&seen);
    let api = service_fn(move |request: Request<()>| {
        if let Ok(mut kept) = kept.lock() {
            *kept = Some(request.headers().contains_key(AUTHORIZATION));
        }
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    let sent = run(layer.layer(api).oneshot(request));
    let seen = seen.lock().map_or(None, |seen| *seen);
    match (sent, seen) {
        (Ok(_), Some(true)) => {}
        (Err(_), None) => return,
        (_, seen) => panic!("{target:?} was sent without a token or failed after: {seen:?}"),
    }
    let url = Url::parse(target);
    let url = url.unwrap_or_else(|error| panic!("allowed, but not a URL ({error}): {target:?}"));
    let host = url.host_str().unwrap_or_default();
    let plain = url.username().is_empty() && url.password().is_none();
    assert!(plain, "{target:?} carries a user");
    let ours = ["app.officernd.com", "hybrid.officernd.com"].contains(&host);
    let ours = ours && url.scheme() == "https";
    let ours = ours && url.port_or_known_default() == Some(443);
    let theirs = added && matches_naively(pattern, &url);
    assert!(ours || theirs, "{pattern:?} let {target:?} through");
}

/// Returns `true` if a URL has the allowed origin, using the `url` crate alone.
fn matches_naively(pattern: &str, url: &Url) -> bool {
    let (wildcard, pattern) = match pattern.split_once("://*.") {
        Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
        None => (false, pattern.to_owned()),
    };
    let Ok(pattern) = Url::parse(&pattern) else {
        return false;
    };
    let (host, allowed) = (url.host_str(), pattern.host_str());
    let (host, allowed) = (host.unwrap_or_default(), allowed.unwrap_or_default());
    let hosts = match wildcard {
        true => host.ends_with(&format!(".{allowed}")),
        false => host == allowed,
    };
    hosts
        && url.scheme() == pattern.scheme()
        && url.port_or_known_default() == pattern.port_or_known_default()
}

/// Checks credentials and settings with any text: they are accepted or return a typed error, and never show the secret.
pub fn settings(data: &[u8]) {
    const SECRET: &str = "s3cr3t";

    let text = String::from_utf8_lossy(data);
    if text.contains(SECRET) {
        return;
    }
    let mut parts = text.split('\n');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let secret = format!("{SECRET}-{}", part());
    let credentials = ClientCredentials::new(part(), secret.as_str())
        .scope(part())
        .token_url(part())
        .form_param(part(), part());
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let provider = HttpTokenProvider::with_service(credentials.clone(), service);
    let Ok(token) = StaticToken::new("token") else {
        panic!("a valid token is refused");
    };
    let layer = OfficeRndAuthLayer::builder(token)
        .allow_origin(&part())
        .build();
    let mut shown = format!("{credentials:?} {provider:?} {layer:?}");
    for error in [provider.err(), layer.err()].into_iter().flatten() {
        assert!(!error.to_string().is_empty());
        shown.push_str(&error.to_string());
    }
    assert!(!shown.contains(SECRET), "{shown}");
}
