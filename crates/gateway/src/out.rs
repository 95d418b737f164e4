//! One HTTP client for token requests and for the API, so that proxies, root certificates and DNS apply
//! to both alike.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::Scheme;
use axum::http::{Method, Request, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use officernd_auth::BoxError;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

pub(crate) type Response = hyper::Response<Incoming>;

/// For DNS, TCP, a proxy's tunnel and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// If a body pauses, its own timeout responds before that of the answer.
const GRACE: Duration = Duration::from_millis(500);

/// RFC 9110 section 9.2.2, without TRACE.
#[rustfmt::skip]
const IDEMPOTENT: [Method; 5] = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS];

/// Shorter than the idle timeout of servers, so that a connection is not used while it closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// A part of an error's causes, and its explanation for operators.
#[rustfmt::skip]
const WORDS: [(&str, &str); 10] = [
    ("proxy authorization required", "the proxy requires a user name and a password (407): set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
    ("tunnel error: unsuccessful", "the proxy refused the connection: allow this host in the proxy, or bypass the proxy with NO_PROXY"),
    ("tunnel error: failed to create", "the proxy cannot be reached: check HTTPS_PROXY"),
    ("tunnel error", "the proxy closed the connection"),
    ("dns error", "the host name does not resolve: check its spelling and this machine's DNS"),
    ("certificate: UnknownIssuer", "the certificate is from an unknown CA: if a proxy decrypts TLS, put its root certificate into SSL_CERT_FILE"),
    ("invalid peer certificate", "the certificate is not valid"),
    ("Connection refused", "the connection was refused: nothing is listening there, or a firewall rejects it"),
    ("deadline has elapsed", "connecting timed out: a firewall may drop the packets, or this network needs a proxy (HTTPS_PROXY)"),
    ("invalid HTTP", "the response is not HTTP"),
];

/// The type-erased client. Sends requests unchanged and does not follow redirects.
pub(crate) type HttpClient = BoxCloneSyncService<Request<Body>, Response, BoxError>;

type Stream = MaybeHttpsStream<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// Creates the client. A connection is closed if its peer acknowledges no data for `write_timeout`. The
/// error names a proxy that cannot be used, or says that root certificates are missing.
pub(crate) fn client(write_timeout: Duration) -> Result<HttpClient, String> {
    check_proxies()?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(Duration::from_secs(5)));
    tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(write_timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(ConfigBuilderExt::try_with_platform_verifier)
        .map_err(|error| format!("{error}; install ca-certificates or set SSL_CERT_FILE"))?;
    let tls = Arc::new(tls.with_no_client_auth());
    let direct = HttpsConnector::from((tcp, Arc::clone(&tls)));
    let proxies = Arc::new(Matcher::from_env());
    let connector = service_fn(move |uri: Uri| {
        let proxy = intercept(&proxies, &uri);
        let (direct, tls) = (direct.clone(), Arc::clone(&tls));
        let connecting = connect(uri, proxy, direct, tls);
        async { tokio::time::timeout(CONNECT_TIMEOUT, connecting).await? }
    });
    // By default, this client also sends a request again that it has not begun to write, such as a POST on
    // a connection that turned out to be closed. `send` repeats only requests that may have been written.
    let http = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(BoxCloneSyncService::new(connector));
    let client = service_fn(move |request| send(http.clone(), request));
    Ok(BoxCloneSyncService::new(client))
}

/// Limits the time to the head of the response. It starts anew whenever the request's body moves.
pub(crate) fn with_timeout(client: HttpClient, timeout: Duration) -> HttpClient {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let host = host(&request);
        let moved = Arc::new(Notify::new());
        let of_body = Arc::clone(&moved);
        let request = request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                of_body.notify_one();
                frame
            }))
        });
        let mut response = client.clone().oneshot(request);
        async move {
            loop {
                tokio::select! {
                    biased;
                    response = &mut response => return response,
                    () = moved.notified() => {}
                    () = tokio::time::sleep(timeout + GRACE) => break,
                }
            }
            Err(Unanswered("the API did not answer in time", host, None).into())
        }
    }))
}

/// Returns the proxy for this URL.
pub(crate) fn proxy(uri: &Uri) -> Option<Uri> {
    intercept(&Matcher::from_env(), uri).map(|proxy| proxy.uri().clone())
}

/// Sends a request, and sends it again if the connection closed before the head of the response was
/// complete and that is safe.
async fn send(
    http: Client<BoxCloneSyncService<Uri, Stream, BoxError>, Body>,
    request: Request<Body>,
) -> Result<Response, BoxError> {
    let host = host(&request);
    let (parts, body) = request.into_parts();
    // Bodies stream and so cannot be sent twice.
    let idempotent = body.is_end_stream() && IDEMPOTENT.contains(&parts.method);
    let again = idempotent.then(|| parts.clone());
    let mut response = http.request(Request::from_parts(parts, body)).await;
    if let (Err(error), Some(parts)) = (&response, again)
        && is_closed(error)
    {
        let request = Request::from_parts(parts, Body::empty());
        response = http.request(request).await;
    }
    response.map_err(|error| Unanswered(cause(&error), host, Some(error)).into())
}

/// Returns the host and the port in a request's URL.
pub(crate) fn host(request: &Request<Body>) -> String {
    let host = request.uri().authority().map(ToString::to_string);
    host.unwrap_or_default()
}

/// No proxy for plain http, which goes to this machine only: the proxy would see the token.
fn intercept(proxies: &Matcher, uri: &Uri) -> Option<Intercept> {
    let https = uri.scheme() == Some(&Scheme::HTTPS);
    proxies.intercept(uri).filter(|_| https)
}

/// Connects directly or through a proxy's tunnel.
async fn connect(
    uri: Uri,
    proxy: Option<Intercept>,
    direct: HttpsConnector<HttpConnector>,
    tls: Arc<ClientConfig>,
) -> Result<Stream, BoxError> {
    let Some(proxy) = proxy else {
        return direct.oneshot(uri).await.map(MaybeHttpsStream::Http);
    };
    let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
    if let Some(basic) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(basic.clone());
    }
    HttpsConnector::from((tunnel, tls)).oneshot(uri).await
}

/// The matcher ignores a proxy that it cannot parse, so requests would bypass it. Like the matcher, takes
/// the first variable of each pair that is set, even if it is empty, and `ALL_PROXY` if that one is empty.
fn check_proxies() -> Result<(), String> {
    let first = |names: [&'static str; 2]| {
        let set = |name| Some((name, std::env::var(name).ok()?));
        names.into_iter().find_map(set)
    };
    let pairs = [["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]];
    let mut set = pairs.into_iter().filter_map(first);
    let Some((name, value)) = set.find(|(_, value)| !value.is_empty()) else {
        return Ok(());
    };
    let proxy = Matcher::builder().all(value).build();
    let proxy = proxy.intercept(&Uri::from_static("https://app.officernd.com"));
    match proxy.as_ref().and_then(|proxy| proxy.uri().scheme_str()) {
        Some("http" | "https") => Ok(()),
        _ => Err(format!(
            "{name}: is not http://HOST:PORT or https://HOST:PORT"
        )),
    }
}

/// Why a request got no response: an explanation for operators, the host, and the client's error, or
/// `None` if the API did not answer in time.
#[derive(Debug)]
pub(crate) struct Unanswered(pub(crate) &'static str, String, pub(crate) Option<Error>);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cause, host, _) = self;
        write!(f, "{host}: {cause}")
    }
}

impl StdError for Unanswered {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.2.as_ref()?)
    }
}

/// Returns `true` if the connection closed before the head of the response was complete. hyper does not
/// tell whether a part of it had arrived.
fn is_closed(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};

    let closed = |cause: &(dyn StdError + 'static)| {
        let http: Option<&hyper::Error> = cause.downcast_ref();
        let kind = cause.downcast_ref().map(io::Error::kind);
        http.is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
            || matches!(
                kind,
                Some(ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
            )
    };
    !error.is_connect() && causes(error).any(closed)
}

/// Explains a failure by its text, because hyper-util does not export all types of its errors.
fn cause(error: &Error) -> &'static str {
    let text = chain(error);
    let words = WORDS.iter().find(|(part, _)| text.contains(part));
    match words {
        Some((_, words)) => words,
        None if is_closed(error) => "the connection was closed before a response",
        None => "the request failed",
    }
}

/// Returns an error and its causes, including those inside an I/O error.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    fn next<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    // A chain of sources may be a cycle.
    std::iter::successors(Some(error), next).take(32)
}

/// Formats an error and its causes in one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
