//! Pods: caches that share only a store. Also what several tests need of Redis and of slow connections.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use officernd_auth::clock::{Clock, TokioClock};
use officernd_auth::{
    ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, RateLimit, TokenCache,
};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::{Claim, Finish, Limits, Name, RedisStore, TokenStore};
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn now() -> Instant {
    TokioClock.now()
}

pub(crate) type Shared = SharedTokenProvider<HttpTokenProvider>;

pub(crate) fn credentials(officernd: &Simulator) -> ClientCredentials {
    ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url())
}

pub(crate) fn provider(officernd: &Simulator, store: impl TokenStore) -> Shared {
    // Plain HTTP: a client with TLS reads the system's roots, which takes a debug build with 200 pods a minute.
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let http = HttpTokenProvider::with_service(credentials(officernd), client).unwrap();
    SharedTokenProvider::new(http, store)
}

/// Makes a cache with a rate limit of its own, as in a separate process.
pub(crate) fn cache(provider: &Shared) -> TokenCache {
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .rate_limit(RateLimit::new(5, MINUTE))
        .fetch_timeout(Duration::from_secs(2))
        .acquire_timeout(Duration::from_secs(20))
        .build();
    layer.unwrap().cache().clone()
}

/// Makes a cache with a provider, a client and a connection of its own.
pub(crate) fn pod(officernd: &Simulator, url: &str) -> (Shared, TokenCache) {
    let provider = provider(officernd, RedisStore::new(url).unwrap());
    let cache = cache(&provider);
    (provider, cache)
}

/// Calls all caches at once. Returns the longest wait.
pub(crate) async fn call_all(caches: &[TokenCache]) -> Duration {
    let calls: Vec<_> = caches
        .iter()
        .map(|cache| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let start = now();
                cache.token().await.map(|_| now() - start)
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for call in calls {
        longest = longest.max(call.await.unwrap().unwrap());
    }
    longest
}

/// Makes a claim for the token of this name, with a limit of five requests a minute.
pub(crate) fn claim(name: &[u8]) -> Claim {
    let (key, window) = (Name::digest_of(name), Name::digest_of(b"endpoint"));
    let limits = Limits::new(Duration::from_secs(15), Some(5), MINUTE);
    Claim::new(key, window, Name::random().unwrap(), limits)
}

/// Makes a claim that may not fetch.
pub(crate) fn look(name: &[u8]) -> Claim {
    let mut look = claim(name);
    look.may_fetch = false;
    look
}

/// Makes the end of a claim that frees its slot at once.
pub(crate) fn finish(claim: &Claim) -> Finish {
    let (key, window) = (claim.key.clone(), claim.window.clone());
    Finish::new(key, window, claim.holder.clone(), Duration::ZERO)
}

/// Returns the URL of a server that accepts connections in the kernel only, and never replies.
pub(crate) fn hung() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Forwards bytes to the server, and its replies after `delay`. Returns the URL.
pub(crate) async fn slow(port: u16, delay: Duration) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                    tokio::time::sleep(delay).await;
                    if to_client.write_all(&bytes[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}
