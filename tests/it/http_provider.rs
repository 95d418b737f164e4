//! What goes to the token endpoint, what becomes of its answer, and where the
//! secret comes from. `faults.rs` has the forms of an answer.

mod logs;
mod socket;

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use officernd_auth::credentials::AppCredentials;
use officernd_auth::{
    BoxError, ClientCredentials, ConfigError, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, TokenCache, TokenProvider as _,
};
use tokio::time::advance;
use tower::limit::ConcurrencyLimit;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Log, Stopwatch, cache_with, poll, s, shown};

/// Every character that a form, a URL, JSON or a shell reads for itself.
const ODD: &str = "p@ss w%rd+&=?#/:;,~*'\"\\é€<>[]{}|^`$!()-._";
const TOKEN: &str = r#"{"access_token":"minted","token_type":"Bearer","expires_in":3599}"#;

type Requests = Arc<Mutex<Vec<(request::Parts, Bytes)>>>;

fn credentials() -> ClientCredentials {
    ClientCredentials::new("the-id", "hunter2").scope("a b")
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn token() -> Response<Full<Bytes>> {
    answer(200, TOKEN)
}

fn unknown_client() -> Response<Full<Bytes>> {
    answer(401, r#"{"error":"invalid_client"}"#)
}

/// A provider whose endpoint is a function of the number of the request.
fn over<B>(
    credentials: ClientCredentials,
    endpoint: impl Fn(usize) -> Response<B> + Clone + Send + Sync + 'static,
) -> (HttpTokenProvider, Requests)
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let (seen, endpoint) = (Arc::clone(&seen), endpoint.clone());
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let nth = {
                let mut seen = seen.lock().unwrap();
                seen.push((head, body.to_bytes()));
                seen.len() - 1
            };
            Ok::<_, Infallible>(endpoint(nth))
        }
    });
    let provider = HttpTokenProvider::with_service(credentials, service).unwrap();
    (provider, requests)
}

/// Checks the credentials and reads their files.
fn build(credentials: ClientCredentials) -> Result<HttpTokenProvider, ConfigError> {
    let endpoint = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(token()) });
    HttpTokenProvider::with_service(credentials, endpoint)
}

async fn minted(provider: &HttpTokenProvider) -> String {
    let token = provider.fetch(FetchContext::default()).await.unwrap();
    token.header_value().to_str().unwrap().to_owned()
}

async fn refused(provider: &HttpTokenProvider) -> Error {
    let result = provider.fetch(FetchContext::default()).await;
    result.unwrap_err()
}

/// The client id and secret of each request, with a space between.
fn pairs(requests: &Requests) -> Vec<String> {
    let requests = requests.lock().unwrap();
    let pair = |body: &Bytes| {
        let fields: Vec<_> = form_urlencoded::parse(body).collect();
        format!("{} {}", fields[0].1, fields[1].1)
    };
    requests.iter().map(|(_, body)| pair(body)).collect()
}

/// A file of this test's own.
fn scratch(name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, contents).unwrap();
    path
}

#[tokio::test]
async fn the_request_is_the_one_that_officernd_documents() {
    let credentials = ClientCredentials::new("the id&", ODD)
        .scope(" officernd.api.read   officernd.api.write ")
        .form_param("audience", "https://x/?y=1&z")
        .form_param("empty", "");
    let (provider, requests) = over(credentials, |_| token());
    assert_eq!(minted(&provider).await, "Bearer minted");

    let (head, body) = requests.lock().unwrap().remove(0);
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri, "https://identity.officernd.com/oauth/token");
    let user_agent = concat!("officernd-auth/", env!("CARGO_PKG_VERSION"));
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", user_agent),
    ];
    for (name, value) in headers {
        assert_eq!(head.headers[name], value, "{name}");
    }
    assert_eq!(head.headers.len(), headers.len());
    assert_eq!(
        std::str::from_utf8(&body).unwrap(),
        "client_id=the+id%26\
         &client_secret=p%40ss+w%25rd%2B%26%3D%3F%23%2F%3A%3B%2C%7E*%27%22%5C%C3%A9%E2%82%AC\
         %3C%3E%5B%5D%7B%7D%7C%5E%60%24%21%28%29-._\
         &grant_type=client_credentials\
         &scope=officernd.api.read+officernd.api.write\
         &audience=https%3A%2F%2Fx%2F%3Fy%3D1%26z\
         &empty="
    );

    // Without a scope the field is left out.
    let credentials = ClientCredentials::new("i", "s").scope(" ");
    let elsewhere = credentials.token_url("https://identity.example/token");
    let (provider, requests) = over(elsewhere, |_| token());
    minted(&provider).await;
    let body = &requests.lock().unwrap()[0].1[..];
    assert_eq!(
        body,
        b"client_id=i&client_secret=s&grant_type=client_credentials"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_carries_the_layer_itself_can_be_the_token_client() {
    let layer: Arc<OnceLock<OfficeRndAuthLayer>> = Arc::default();
    let own = Arc::clone(&layer);
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        let endpoint = service_fn(|request: Request<Full<Bytes>>| async move {
            assert!(!request.headers().contains_key("authorization"));
            Ok::<_, Infallible>(token())
        });
        own.get().unwrap().layer(endpoint).oneshot(request)
    });
    let provider = HttpTokenProvider::with_service(credentials(), client).unwrap();
    let builder = OfficeRndAuthLayer::builder(provider).allow_any_https_origin();
    layer.set(builder.build().unwrap()).unwrap();
    let started = Stopwatch::start();
    layer.get().unwrap().cache().token().await.unwrap();
    assert_eq!(started.elapsed(), s(0));
}

#[tokio::test]
async fn retry_after_reaches_the_caller_and_a_date_counts_from_the_answers_own() {
    for (after, seconds) in [("17", 17), ("Sun, 06 Nov 1994 08:50:22 GMT", 45)] {
        let (provider, requests) = over(credentials(), move |_| {
            let answer = Response::builder().status(503).header("retry-after", after);
            let answer = answer.header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
            answer.body(Full::<Bytes>::default()).unwrap()
        });
        assert_eq!(refused(&provider).await.retry_after(), Some(s(seconds)));
        assert_eq!(requests.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_may_take_longer_than_30_s_if_the_fetch_timeout_says_so() {
    // The system accepts connections; nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("http://{}/token", silent.local_addr().unwrap());
    let provider = HttpTokenProvider::new(credentials().token_url(url)).unwrap();
    let cache = cache_with(&provider, |it| {
        it.fetch_timeout(s(60)).acquire_timeout(s(90))
    });
    let caller = tokio::spawn(async move { cache.token().await });
    tokio::time::sleep(s(59)).await;
    let connections = std::iter::from_fn(|| silent.accept().ok()).count();
    assert_eq!(connections, 1);
    let error = caller.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn sixty_four_kib_are_read_and_no_byte_more() {
    for (length, good) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let (provider, _) = over(credentials(), move |_| {
            answer(200, TOKEN.to_owned() + &" ".repeat(length - TOKEN.len()))
        });
        if good {
            assert_eq!(minted(&provider).await, "Bearer minted");
        } else {
            assert_eq!(refused(&provider).await.kind(), ErrorKind::Malformed);
        }
    }
}

#[tokio::test]
async fn the_service_that_is_called_is_the_one_that_was_readied() {
    let endpoint = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(token()) });
    // It panics if it was not readied.
    let endpoint = ConcurrencyLimit::new(endpoint, 1);
    let provider = HttpTokenProvider::with_service(credentials(), endpoint).unwrap();
    for _ in 0..2 {
        assert_eq!(minted(&provider).await, "Bearer minted");
    }
}

#[tokio::test]
async fn an_error_from_below_is_a_transport_error_with_its_cause_unless_it_is_this_crates() {
    async fn failing(error: fn() -> std::io::Error) -> Error {
        let endpoint = service_fn(move |_: Request<Full<Bytes>>| async move {
            Err::<Response<Full<Bytes>>, _>(error())
        });
        refused(&HttpTokenProvider::with_service(credentials(), endpoint).unwrap()).await
    }
    let error = failing(|| std::io::Error::other("connection refused")).await;
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(shown(&error).contains("connection refused"));
    let error = failing(|| {
        let late = Error::new(ErrorKind::Timeout, "late").with_retry_after(s(7));
        std::io::Error::other(late)
    });
    let error = error.await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.retry_after(), Some(s(7)));
}

#[tokio::test]
async fn a_secret_file_is_read_again_at_each_fetch() {
    let path = scratch("http_provider_rotated", "\u{feff}first\r\n");
    let credentials = credentials().secret_from_file(&path);
    let (provider, requests) = over(credentials, |_| token());
    minted(&provider).await;
    fs::write(&path, "second\n").unwrap();
    minted(&provider).await;
    // While it is away, empty or half a file, the last good one serves.
    fs::write(&path, "").unwrap();
    minted(&provider).await;
    fs::remove_file(&path).unwrap();
    minted(&provider).await;
    let sent = ["first", "second", "second", "second"];
    assert_eq!(
        pairs(&requests),
        sent.map(|secret| format!("the-id {secret}"))
    );
}

/// The next failure, with `retry_after` and whether anything was sent.
async fn refusal(provider: &HttpTokenProvider) -> (ErrorKind, Option<u64>, bool) {
    let error = refused(provider).await;
    let wait = error.retry_after().map(|wait| wait.as_secs());
    (error.kind(), wait, !error.is_not_attempted())
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_not_sent_again_before_their_backoff() {
    use ErrorKind::InvalidClient;

    let (fixed, requests) = over(credentials(), |_| unknown_client());
    for hold in [60, 120, 240, 480, 600, 600] {
        assert_eq!(refusal(&fixed).await, (InvalidClient, None, true));
        assert_eq!(refusal(&fixed).await, (InvalidClient, Some(hold), false));
        advance(s(hold - 1)).await;
        assert_eq!(refusal(&fixed).await, (InvalidClient, Some(1), false));
        advance(s(1)).await;
    }
    assert_eq!(pairs(&requests).len(), 6);

    // A source or a file may have others any time, so it is read every 5 s.
    let source = sourced(|| Ok(AppCredentials::new("the-id", "hunter2")));
    let file = credentials().id_from_file(scratch("http_provider_same_id", "the-id"));
    for same in [source, file] {
        let (same, requests) = over(same, |_| unknown_client());
        assert_eq!(refusal(&same).await, (InvalidClient, None, true));
        assert_eq!(refusal(&same).await, (InvalidClient, Some(5), false));
        advance(s(58)).await;
        assert_eq!(refusal(&same).await, (InvalidClient, Some(2), false));
        advance(s(2)).await;
        assert_eq!(refusal(&same).await, (InvalidClient, None, true));
        assert_eq!(pairs(&requests).len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_backoff_of_credentials_counts_their_refusals_in_a_row() {
    let (provider, _) = over(credentials(), |nth| match nth {
        1 => answer(503, ""),
        3 => token(),
        _ => unknown_client(),
    });
    let held = async || refusal(&provider).await.1;
    assert!(refusal(&provider).await.2);
    assert_eq!(held().await, Some(60));
    advance(s(60)).await;
    // A transient failure is none, and ends none.
    assert_eq!(refusal(&provider).await.0, ErrorKind::Transport);
    assert!(refusal(&provider).await.2);
    assert_eq!(held().await, Some(120));
    advance(s(120)).await;
    minted(&provider).await;
    assert!(refusal(&provider).await.2);
    assert_eq!(held().await, Some(60));
}

#[tokio::test(start_paused = true)]
async fn other_credentials_than_the_refused_ones_are_sent_at_once() {
    let path = scratch("http_provider_changed", "old");
    let credentials = credentials().secret_from_file(&path);
    let (provider, requests) = over(credentials, |nth| match nth {
        0..=2 => unknown_client(),
        _ => token(),
    });
    for secret in ["old", "wrong"] {
        fs::write(&path, secret).unwrap();
        for sent in [true, false] {
            assert_eq!(refusal(&provider).await.2, sent);
        }
    }
    // The refusals of another pair do not count.
    advance(s(60)).await;
    assert!(refusal(&provider).await.2);
    // Only the pair that was refused last is remembered.
    fs::write(&path, "old").unwrap();
    assert_eq!(minted(&provider).await, "Bearer minted");
    let sent = ["old", "wrong", "wrong", "old"];
    assert_eq!(
        pairs(&requests),
        sent.map(|secret| format!("the-id {secret}"))
    );
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_do_not_wait_for_a_turn() {
    let source = sourced(|| Ok(AppCredentials::new("the-id", "wrong")));
    for credentials in [source, credentials()] {
        let (provider, requests) = over(credentials, |_| unknown_client());
        let cache = cache_with(&provider, |it| it.rate_limit(RateLimit::new(1, s(90))));
        cache.token().await.unwrap_err();
        // Their backoff is over, and the window is full for 30 s more: a caller would wait that long.
        advance(s(60)).await;
        let started = Stopwatch::start();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidClient);
        assert_eq!(error.retry_after(), Some(s(5)));
        assert_eq!(started.elapsed(), s(0));
        assert_eq!(cache.status().consecutive_failures, 1);
        advance(s(30)).await;
        cache.token().await.unwrap_err();
        assert_eq!(cache.status().consecutive_failures, 2);
        assert_eq!(pairs(&requests).len(), 2);
    }
}

/// Credentials of a source that answers at once.
fn sourced(
    load: impl Fn() -> Result<AppCredentials, BoxError> + Send + Sync + 'static,
) -> ClientCredentials {
    let credentials = ClientCredentials::from_source(move || std::future::ready(load()));
    credentials.scope("officernd.api.read")
}

#[tokio::test(start_paused = true)]
async fn two_spellings_of_a_token_url_share_a_rate_limit() {
    let cache = |url: &str| {
        let (provider, requests) = over(credentials().token_url(url), |_| token());
        (TokenCache::new(provider), requests)
    };
    let (one, sent) = cache("HTTPS://Spelling.test:443/oauth");
    let (other, none) = cache("https://spelling.test/oauth");
    for _ in 0..5 {
        one.refresh().await.unwrap();
    }
    assert_eq!(sent.lock().unwrap().len(), 5);
    let error = other.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(none.lock().unwrap().is_empty());
}

/// A named pipe, which blocks a reader that opens it.
fn pipe(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_file(&path);
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[test]
fn a_secret_file_that_cannot_be_used_is_found_at_build_time() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let large = vec![b'x'; 64 * 1024 + 1];
    let longest = scratch("http_provider_longest", &large[1..]);
    build(credentials().secret_from_file(longest)).unwrap();
    for (path, problem) in [
        (directory.join("http_provider_none"), "cannot be opened"),
        (directory, "is not a regular file"),
        (pipe("http_provider_pipe"), "is not a regular file"),
        (scratch("http_provider_empty", ""), "is empty"),
        (scratch("http_provider_newline", "\n"), "is empty"),
        (scratch("http_provider_lines", "hunter2\n\n"), "control"),
        (scratch("http_provider_latin", b"hunter2\xE9"), "UTF-8"),
        (scratch("http_provider_large", large), "64 KiB"),
    ] {
        let error = build(credentials().secret_from_file(&path)).unwrap_err();
        let text = shown(&error);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(matches!(error, ConfigError::File { .. }), "{text}");
        assert!(text.contains(problem), "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}

#[test]
fn each_mistake_in_credentials_has_its_own_error() {
    let app = |id, secret| ClientCredentials::new(id, secret).scope("a");
    let with_url = |url: &str| credentials().token_url(url);
    let twice = credentials().form_param("a", "1").form_param("a", "2");
    let reserved = credentials().form_param("scope", "x");
    for (credentials, message) in [
        (credentials().scope(" "), "scopes is missing"),
        (credentials().scope("a\"b"), "RFC 6749 section 3.3"),
        (credentials().scope("a\tb"), "RFC 6749 section 3.3"),
        (reserved, "set by this crate"),
        (credentials().form_param("", "1"), "no name"),
        (twice, "given twice"),
        (with_url("identity.officernd.com"), "is relative"),
        (with_url(""), "is not a URL"),
        (with_url("http://identity.officernd.com/"), "plain http"),
        (with_url("ftp://identity.officernd.com/"), "neither https"),
        (with_url("https://u:hunter2@host/"), "user info"),
        (with_url("https://host:99999/"), "port"),
        (with_url("https://host/#hunter2"), "fragment"),
        (app("", "s"), "client_id is empty"),
        (app(" \u{a0} ", "s"), "client_id is blank"),
        (app("a\nb", "s"), "client_id has control"),
        (app("id", "hunter2\n"), "newline at its end"),
    ] {
        let error = build(credentials).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for plain in [
        "http://127.0.0.1:8080/t",
        "http://localhost/t",
        "http://[::1]:1/t",
    ] {
        build(with_url(plain)).unwrap();
    }
}

#[test]
fn officernd_needs_a_scope_and_other_endpoints_do_not() {
    let new = |url: &str| {
        let credentials = ClientCredentials::new("id", "secret").scope(" ");
        HttpTokenProvider::new(credentials.token_url(url))
    };
    for url in [
        "https://identity.officernd.com/oauth/token",
        "https://IDENTITY-staging.officernd.com/",
    ] {
        let error = new(url).unwrap_err().to_string();
        assert!(error.starts_with("scopes is missing"), "{error}");
        for example in ["flex.community.members.read", "officernd.api.read"] {
            assert!(error.contains(example), "{error}");
        }
    }
    for url in ["https://gateway.example/token", "http://127.0.0.1:8080/"] {
        new(url).unwrap();
    }
}

#[test]
fn a_closure_may_use_the_provider_that_asks_it() {
    // No lock is held while a user's code runs: this would hang for ever.
    let provider: Arc<Mutex<Option<HttpTokenProvider>>> = Arc::default();
    let known = Arc::clone(&provider);
    let credentials = sourced(move || {
        let taken = known.lock().unwrap().take();
        if let Some(provider) = taken {
            let mut fetch = std::pin::pin!(provider.fetch(FetchContext::default()));
            assert!(poll(fetch.as_mut()).is_ready());
        }
        Ok(AppCredentials::new("the-id", "hunter2"))
    });
    let (made, requests) = over(credentials, |_| token());
    *provider.lock().unwrap() = Some(made.clone());
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut fetch = std::pin::pin!(made.fetch(FetchContext::default()));
        let _ = done.send(poll(fetch.as_mut()).is_ready());
    });
    assert_eq!(finished.recv_timeout(s(10)), Ok(true));
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[cfg(unix)]
#[tokio::test]
async fn id_and_secret_files_are_swapped_together_behind_a_symbolic_link() {
    use std::os::unix::fs::symlink;

    // As Kubernetes mounts a secret: `..data` leads to the current directory.
    let mount = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("http_provider_mount");
    let _ = fs::remove_dir_all(&mount);
    for (version, id, secret) in [("one", "old", "old-secret"), ("two", "new", "new-secret")] {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("id"), id).unwrap();
        fs::write(mount.join(version).join("secret"), secret).unwrap();
    }
    let data = mount.join("..data");
    symlink("one", &data).unwrap();
    for name in ["id", "secret"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let credentials = credentials()
        .id_from_file(mount.join("id"))
        .secret_from_file(mount.join("secret"));
    let (provider, requests) = over(credentials, |_| token());
    minted(&provider).await;
    symlink("two", mount.join("..new")).unwrap();
    fs::rename(mount.join("..new"), &data).unwrap();
    minted(&provider).await;
    assert_eq!(pairs(&requests), ["old old-secret", "new new-secret"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_pair_serves_while_the_source_fails_or_hangs() {
    let calls = Arc::new(AtomicUsize::new(0));
    let credentials = ClientCredentials::from_source(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 => Ok(AppCredentials::new("one", "first")),
                1 => Err("the vault is sealed".into()),
                2 => std::future::pending().await,
                3 => Ok(AppCredentials::new("", "no id")),
                _ => Ok(AppCredentials::new("two", "second")),
            }
        }
    });
    let (provider, requests) = over(credentials.scope("a"), |_| token());
    let started = Stopwatch::start();
    for _ in 0..5 {
        minted(&provider).await;
    }
    // The one that hangs has half of the fetch timeout.
    assert_eq!(started.elapsed(), s(5));
    let first = "one first";
    assert_eq!(pairs(&requests), [first, first, first, first, "two second"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_read_is_no_failure_of_the_endpoint_and_asked_again_in_5_s() {
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    let source = sourced(move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => Err("the vault is sealed".into()),
        _ => Ok(AppCredentials::new("one", "first")),
    });
    let (provider, requests) = over(source, |_| token());
    let cache = TokenCache::new(provider);
    for passed in 0..5 {
        // Those who come later get it as well, and wait for nothing.
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport);
        assert!(error.is_transient());
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "the vault is sealed");
        assert_eq!(error.retry_after(), Some(s(5 - passed)));
        assert_eq!(cache.status().consecutive_failures, 0);
        assert!(pairs(&requests).is_empty());
        tokio::time::sleep(s(1)).await;
    }
    cache.token().await.unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_itself_is_named_in_the_timeout() {
    let service = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(token()) });
    let client = ConcurrencyLimit::new(service, 1);
    // A request of the layer holds the only permit, and waits for the token.
    let mut request = client.clone();
    request.ready().await.unwrap();
    let provider = HttpTokenProvider::with_service(credentials(), client).unwrap();
    let cache = TokenCache::new(provider);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("poll_ready"), "{error}");
}
