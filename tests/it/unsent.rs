//! A token request whose connection was never made takes no place of the rate limit.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::Full;
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, RateLimit};

use crate::support::s;

/// A name that no server knows.
#[derive(Clone)]
struct NoName;

impl tower::Service<hyper_util::client::legacy::connect::dns::Name> for NoName {
    type Response = std::iter::Empty<std::net::SocketAddr>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: hyper_util::client::legacy::connect::dns::Name) -> Self::Future {
        let message = "failed to lookup address information";
        std::future::ready(Err(std::io::Error::other(message)))
    }
}

/// Whether a token request over this client leaves the one place of the rate limit free.
async fn is_unsent<C>(client: C, url: &str) -> bool
where
    C: tower::Service<Request<Full<bytes::Bytes>>, Response = Response<hyper::body::Incoming>>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Error: Into<tower::BoxError>,
    C::Future: Send,
{
    let credentials = ClientCredentials::new("id", "secret").token_url(url);
    let provider = HttpTokenProvider::with_service(credentials, client).unwrap();
    let rate_limit = RateLimit::new(1, s(600));
    let layer = OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit.clone());
    let cache = layer.fetch_timeout(s(2)).build().unwrap().cache().clone();
    cache.token().await.unwrap_err();
    let other = OfficeRndAuthLayer::builder(ScriptedProvider::new()).rate_limit(rate_limit);
    let other = other.acquire_timeout(s(2)).build().unwrap().cache().clone();
    other.token().await.is_ok()
}

#[tokio::test]
async fn a_name_that_is_unknown_and_a_handshake_that_fails_are_not_sent() {
    use hyper_util::client::legacy::{Client, connect::HttpConnector};

    let executor = hyper_util::rt::TokioExecutor::new;
    let unknown = Client::builder(executor()).build(HttpConnector::new_with_resolver(NoName));
    assert!(is_unsent(unknown, "http://localhost:1/token").await);

    // It speaks no TLS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt as _;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls_config())
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(executor()).build(connector);
    assert!(is_unsent(client, &format!("https://localhost:{port}/token")).await);
}

fn tls_config() -> tokio_rustls::rustls::ClientConfig {
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_ready_in_time_has_sent_nothing() {
    struct NotReady;
    impl tower::Service<Request<Full<bytes::Bytes>>> for NotReady {
        type Response = Response<hyper::body::Incoming>;
        type Error = std::io::Error;
        type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Pending
        }

        fn call(&mut self, _: Request<Full<bytes::Bytes>>) -> Self::Future {
            std::future::pending()
        }
    }
    impl Clone for NotReady {
        fn clone(&self) -> Self {
            Self
        }
    }
    assert!(is_unsent(NotReady, "https://not-ready.test/token").await);
}
