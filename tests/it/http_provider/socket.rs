//! The same over sockets: hyper and reqwest.

use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::*;
use crate::raw::{Raw, Script, closed_port, read_request};
use crate::support::GENEROUS;

/// A server that answers with these bytes and hangs up.
async fn server(answer: impl Into<String>) -> Raw {
    Raw::start(Script::Answer(answer.into().into_bytes())).await
}

/// The lines of the head, and the body, of the only request.
fn only(server: &Raw) -> (Vec<String>, String) {
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    let head = head.split("\r\n").map(str::to_owned).collect();
    (head, body.to_owned())
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn odd(url: &str) -> ClientCredentials {
    let scopes = ["officernd.api.read", "officernd.api.write"];
    ClientCredentials::new("the id&=", ODD)
        .scopes(scopes)
        .token_url(url)
}

fn hyper(credentials: ClientCredentials) -> HttpTokenProvider {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    HttpTokenProvider::with_service(credentials, client).unwrap()
}

mod reqwest {
    use super::*;

    fn provider(credentials: ClientCredentials) -> HttpTokenProvider {
        HttpTokenProvider::new(credentials).unwrap()
    }

    #[tokio::test]
    async fn reqwest_sends_what_hyper_sends() {
        let (one, other) = (server(ok(TOKEN)).await, server(ok(TOKEN)).await);
        assert_eq!(minted(&provider(odd(&one.url))).await, "Bearer minted");
        minted(&hyper(odd(&other.url))).await;
        let ((head, body), (other_head, other_body)) = (only(&one), only(&other));
        assert_eq!(head[0], "POST /oauth/token HTTP/1.1");
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(body, other_body);
        let fields = |head: &[String]| {
            let lines = head.iter().filter(|line| !line.starts_with("host: "));
            let mut lines: Vec<String> = lines.cloned().collect();
            lines.sort();
            lines
        };
        assert_eq!(fields(&head), fields(&other_head));
    }

    /// A client of the user's own: it follows redirects and retries what fails.
    fn eager() -> ::reqwest::ClientBuilder {
        let retry = ::reqwest::retry::for_host("127.0.0.1");
        ::reqwest::Client::builder()
            .redirect(::reqwest::redirect::Policy::limited(5))
            .retry(retry.classify_fn(|request| request.retryable()))
    }

    fn over(credentials: ClientCredentials, client: ::reqwest::ClientBuilder) -> HttpTokenProvider {
        HttpTokenProvider::with_reqwest(credentials, client.build().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_follows_redirects_takes_no_secret_along_and_its_token_is_not_used() {
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = server(ok(TOKEN)).await;
            let endpoint = server(format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
                elsewhere.url
            ))
            .await;
            let theirs = over(odd(&endpoint.url), eager());
            assert_eq!(refused(&theirs).await.kind(), ErrorKind::Malformed);
            // The secret is in the body: a 307 and a 308, which would repeat it, are not followed.
            let followed = elsewhere.seen();
            assert_eq!(followed.is_empty(), status >= 307, "{followed:?}");
            for request in followed {
                assert!(request.starts_with("GET "), "{request}");
                assert!(!request.contains("client_secret"), "{request}");
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_retries_does_not_repeat_the_token_request() {
        let endpoint = server("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        refused(&over(odd(&endpoint.url), eager())).await;
        assert_eq!(endpoint.seen().len(), 1);
    }

    /// The secret would cross the network in the clear.
    #[tokio::test]
    async fn plain_http_to_this_machine_goes_through_no_proxy_of_the_environment() {
        const CHILD: &str = "HTTP_PROVIDER_PROXY_CHILD";
        if let Ok(url) = std::env::var(CHILD) {
            minted(&provider(odd(&url))).await;
            return;
        }
        let (endpoint, proxy) = (server(ok(TOKEN)).await, server(ok(TOKEN)).await);
        let test = std::thread::current().name().unwrap().to_owned();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test])
            .env(CHILD, &endpoint.url)
            .env("http_proxy", &proxy.url)
            .env_remove("no_proxy")
            .env_remove("NO_PROXY")
            .status();
        assert!(child.await.unwrap().success());
        assert!(proxy.seen().is_empty());
        assert_eq!(endpoint.seen().len(), 1);
    }

    #[tokio::test]
    async fn https_may_go_through_a_proxy_in_a_tunnel() {
        let proxy = server("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await;
        let via = ::reqwest::Proxy::all(&proxy.url).unwrap();
        let client = ::reqwest::Client::builder().proxy(via);
        let provider = over(odd("https://tunnel.test/oauth"), client);
        assert_eq!(refused(&provider).await.kind(), ErrorKind::Transport);
        let (head, body) = only(&proxy);
        assert!(head[0].starts_with("CONNECT tunnel.test:443 "), "{head:?}");
        assert_eq!(body, "");
    }

    #[tokio::test]
    async fn no_error_shows_the_url() {
        // Nobody listens there; a body is cut short; no HTTP at all.
        let (_socket, address) = closed_port();
        let closed = format!("http://{address}");
        let cut = server("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{").await;
        let garbled = server("hunter2\r\n\r\n").await;
        for url in [&closed, &cut.url, &garbled.url] {
            let provider = provider(odd(&format!("{url}?key=hunter2")));
            let error = refused(&provider).await;
            assert_eq!(error.kind(), ErrorKind::Transport);
            assert!(!shown(&error).contains("hunter2"), "{}", shown(&error));
        }
    }

    /// Each connection is used once: one that stood idle for an hour is dead.
    #[tokio::test]
    async fn a_connection_is_used_once() {
        // It would stay good, but nothing is read from it any more.
        let answer = ok(TOKEN).replace("connection: close\r\n", "");
        let endpoint = Raw::start(Script::AnswerAndHang(answer.into_bytes())).await;
        let provider = provider(odd(&endpoint.url));
        for _ in 0..3 {
            let fetched = tokio::time::timeout(GENEROUS, minted(&provider));
            assert_eq!(fetched.await.unwrap(), "Bearer minted");
        }
        assert_eq!(endpoint.connections.load(Ordering::SeqCst), 3);
    }
}

/// The clock is paused: it stands still while a socket has anything to say.
#[tokio::test(start_paused = true)]
async fn a_cold_start_is_over_soon_after_the_endpoints_port_opens() {
    for nth in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}/token", socket.local_addr().unwrap());
        let provider = HttpTokenProvider::new(credentials().token_url(url)).unwrap();
        let cache = OfficeRndAuthLayer::new(provider).cache().clone();
        tokio::spawn(async move {
            tokio::time::sleep(s(8)).await;
            let listener = socket.listen(16).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                read_request(&mut stream).await;
                let _ = stream.write_all(ok(TOKEN).as_bytes()).await;
            }
        });
        let start = Stopwatch::start();
        let callers = {
            let cache = cache.clone();
            tokio::spawn(async move {
                while start.elapsed() < s(60) && cache.try_token().is_none() {
                    if let Err(error) = cache.token().await {
                        assert_eq!(error.kind(), ErrorKind::Transport, "{nth}");
                        assert!(error.retry_after() <= Some(s(5)), "{error:?}");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                start.elapsed()
            })
        };
        cache.warm_up().await.unwrap();
        assert!(start.elapsed() <= s(8 + 5 + 1), "{:?}", start.elapsed());
        assert!(callers.await.unwrap() <= s(8 + 5 + 1));
        assert_eq!(cache.status().token_requests, 1);
    }
}

/// How a cache over this provider fares in a window of one request: the error, and how many requests were sent.
async fn error_and_requests(provider: HttpTokenProvider) -> (ErrorKind, u64) {
    let builder = OfficeRndAuthLayer::builder(provider).rate_limit(RateLimit::new(1, s(600)));
    // The cache tries twice; without a second place the first error is the answer.
    let cache = builder.build().unwrap().cache().clone();
    let error = cache.token().await.unwrap_err();
    (error.kind(), cache.status().token_requests)
}

#[tokio::test]
async fn a_request_whose_connection_was_never_made_takes_no_place() {
    // It takes connections and speaks no TLS.
    let greets = Raw::start(Script::Greet(b"this is not TLS\r\n".to_vec())).await;
    let no_tls = greets.origin().replace("http:", "https:");
    let (_socket, address) = closed_port();
    let refused = format!("http://{address}/token");
    let hangs_up = server("").await;
    for (url, sent) in [(&refused, 0), (&no_tls, 0), (&hangs_up.url, 1)] {
        let over_reqwest = HttpTokenProvider::new(credentials().token_url(url)).unwrap();
        assert_eq!(
            error_and_requests(over_reqwest).await,
            (ErrorKind::Transport, sent)
        );
    }
    assert_eq!(hangs_up.seen().len(), 1);

    let no_names = HttpConnector::new_with_resolver(service_fn(|_: Name| async {
        let message = "failed to lookup address information";
        Err::<std::iter::Empty<std::net::SocketAddr>, _>(std::io::Error::other(message))
    }));
    let no_names = Client::builder(TokioExecutor::new()).build(no_names);
    let unknown = credentials().token_url("http://localhost:1/token");
    let unknown = HttpTokenProvider::with_service(unknown, no_names).unwrap();
    assert_eq!(error_and_requests(unknown).await, (ErrorKind::Transport, 0));

    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls_config());
    let tls = tls.https_or_http().enable_http1().build();
    let tls = Client::builder(TokioExecutor::new()).build(tls);
    let handshake = HttpTokenProvider::with_service(credentials().token_url(no_tls), tls);
    assert_eq!(
        error_and_requests(handshake.unwrap()).await,
        (ErrorKind::Transport, 0)
    );
}

fn tls_config() -> tokio_rustls::rustls::ClientConfig {
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// Resolves no name: it fails at once, or never answers.
struct NoNames(bool);

impl ::reqwest::dns::Resolve for NoNames {
    fn resolve(&self, _: ::reqwest::dns::Name) -> ::reqwest::dns::Resolving {
        match self.0 {
            true => Box::pin(std::future::pending()),
            false => Box::pin(async { Err("no such host".into()) }),
        }
    }
}

#[tokio::test]
async fn an_unknown_name_and_a_connect_timeout_take_no_place_over_reqwest() {
    for (hangs, kind) in [(false, ErrorKind::Transport), (true, ErrorKind::Timeout)] {
        let client = ::reqwest::Client::builder().dns_resolver(Arc::new(NoNames(hangs)));
        let client = client.connect_timeout(Duration::from_millis(50)).build();
        let credentials = credentials().token_url("https://x.invalid/token");
        let provider = HttpTokenProvider::with_reqwest(credentials, client.unwrap()).unwrap();
        assert_eq!(error_and_requests(provider).await, (kind, 0));
    }
}

/// A body that breaks off as if the network were gone.
struct Breaks;

impl Body for Breaks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let gone = std::io::Error::from(std::io::ErrorKind::HostUnreachable);
        std::task::Poll::Ready(Some(Err(gone)))
    }
}

#[tokio::test]
async fn a_network_that_is_gone_after_reqwest_has_connected_is_no_missing_connection() {
    let server = Raw::start(Script::AnswerAndHang(Vec::new())).await;
    let (url, client) = (server.url.clone(), ::reqwest::Client::new());
    let breaks = service_fn(move |_: Request<Full<Bytes>>| {
        let body = ::reqwest::Body::wrap(Breaks);
        let response = client.post(&url).body(body).send();
        async { response.await.map(Response::<::reqwest::Body>::from) }
    });
    let provider = HttpTokenProvider::with_service(credentials(), breaks).unwrap();
    assert_eq!(
        error_and_requests(provider).await,
        (ErrorKind::Transport, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_ready_in_time_has_sent_nothing() {
    let (client, mut server) = tower_test::mock::pair::<_, Response<Full<Bytes>>>();
    server.allow(0);
    let provider = HttpTokenProvider::with_service(credentials(), client).unwrap();
    assert_eq!(error_and_requests(provider).await, (ErrorKind::Timeout, 0));
}
