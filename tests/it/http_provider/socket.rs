//! The same over sockets: hyper, reqwest and curl.

use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::*;
use crate::raw::{Raw, Script, read_request};

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

fn value(head: &[impl AsRef<str>], name: &str) -> Option<String> {
    let mut fields = head
        .iter()
        .filter_map(|line| line.as_ref().split_once(": "));
    let (_, value) = fields.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(value.to_owned())
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

#[tokio::test]
async fn the_request_says_what_curl_says() {
    let (ours, curls) = (server(ok(TOKEN)).await, server(ok(TOKEN)).await);
    assert_eq!(minted(&hyper(odd(&ours.url))).await, "Bearer minted");
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "--noproxy", "*", "--max-time", "20"]);
    for (name, value) in [
        ("client_id", "the id&="),
        ("client_secret", ODD),
        ("grant_type", "client_credentials"),
        ("scope", "officernd.api.read officernd.api.write"),
    ] {
        curl.arg("--data-urlencode").arg(format!("{name}={value}"));
    }
    let output = curl.arg(&curls.url).output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), TOKEN);

    let ((head, body), (curl_head, curl_body)) = (only(&ours), only(&curls));
    assert_eq!(head[0], "POST /oauth/token HTTP/1.1");
    assert_eq!(head[0], curl_head[0]);
    assert_eq!(
        value(&head, "content-type"),
        value(&curl_head, "content-type")
    );
    assert_eq!(value(&head, "content-length"), Some(body.len().to_string()));
    assert_eq!(value(&head, "transfer-encoding"), None);
    assert_eq!(canonical(&body), canonical(&curl_body));
}

/// A form with every byte of its names and values escaped: there are several
/// ways to write a space, `~` and `*`.
fn canonical(form: &str) -> String {
    let mut escaped = String::new();
    let mut bytes = form.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'&' | b'=' => {
                escaped.push(byte.into());
                continue;
            }
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            plain => {
                assert!(plain.is_ascii_alphanumeric() || b"*-._~".contains(&plain));
                plain
            }
        };
        escaped += &format!("%{byte:02X}");
    }
    escaped
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
            let own = provider(odd(&endpoint.url));
            assert_eq!(refused(&own).await.kind(), ErrorKind::Malformed);
            assert!(elsewhere.seen().is_empty());
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

    #[tokio::test]
    async fn one_client_serves_many_providers() {
        let endpoint = server(ok(TOKEN)).await;
        let client = ::reqwest::Client::new();
        for id in ["berlin", "paris"] {
            let credentials = ClientCredentials::new(id, "secret").token_url(&endpoint.url);
            let provider = HttpTokenProvider::with_reqwest(credentials, client.clone()).unwrap();
            assert_eq!(minted(&provider).await, "Bearer minted");
        }
        let seen = endpoint.seen();
        assert!(seen[0].contains("client_id=berlin") && seen[1].contains("client_id=paris"));
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
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                read_request(&mut stream).await;
                let answer = ok(TOKEN).replace("connection: close\r\n", "");
                stream.write_all(answer.as_bytes()).await.unwrap();
                // It would stay good, but nothing is read from it any more.
                open.push(stream);
            }
        });
        let provider = provider(odd(&url));
        for _ in 0..3 {
            let fetched = tokio::time::timeout(Duration::from_secs(20), minted(&provider));
            assert_eq!(fetched.await.unwrap(), "Bearer minted");
        }
    }
}

/// How the token endpoint of this URL counts in a window of one request.
async fn error_and_requests(url: &str) -> (ErrorKind, u64) {
    let provider = HttpTokenProvider::new(credentials().token_url(url)).unwrap();
    let layer = OfficeRndAuthLayer::builder(provider)
        .rate_limit(RateLimit::new(1, s(60)))
        .build()
        .unwrap();
    // The cache tries twice; without a second place the first error is the answer.
    let error = layer.cache().token().await.unwrap_err();
    (error.kind(), layer.cache().status().token_requests)
}

#[tokio::test]
async fn a_request_whose_connection_was_never_made_takes_no_place() {
    // Bound, so that no other process listens there, and closed to connections.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = format!("http://{}/token", socket.local_addr().unwrap());
    assert_eq!(
        error_and_requests(&refused).await,
        (ErrorKind::Transport, 0)
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls = format!("https://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"this is not TLS\r\n").await;
        }
    });
    assert_eq!(error_and_requests(&no_tls).await, (ErrorKind::Transport, 0));

    let hangs_up = server("").await;
    assert_eq!(
        error_and_requests(&hangs_up.url).await,
        (ErrorKind::Transport, 1)
    );
    assert_eq!(hangs_up.seen().len(), 1);
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
