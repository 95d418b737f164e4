//! Pods: caches that know each other by the store only.

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
    // Plain HTTP: a client with TLS reads the system's roots, which takes a debug
    // build of 200 pods a minute.
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let http = HttpTokenProvider::with_service(credentials(officernd), client).unwrap();
    SharedTokenProvider::new(http, store)
}

/// Not even the process's rate limit is shared: as if each were a process.
pub(crate) fn cache(provider: &Shared) -> TokenCache {
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .rate_limit(RateLimit::new(5, MINUTE))
        .fetch_timeout(Duration::from_secs(2))
        .acquire_timeout(Duration::from_secs(20))
        .build();
    layer.unwrap().cache().clone()
}

/// A cache with a provider, a client and a connection of its own.
pub(crate) fn pod(officernd: &Simulator, url: &str) -> (Shared, TokenCache) {
    let provider = provider(officernd, RedisStore::new(url).unwrap());
    let cache = cache(&provider);
    (provider, cache)
}

/// All ask at once; the longest wait.
pub(crate) async fn ask_all(caches: &[TokenCache]) -> Duration {
    let asked: Vec<_> = caches
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
    for asked in asked {
        longest = longest.max(asked.await.unwrap().unwrap());
    }
    longest
}

/// A claim of OfficeRnD's five a minute, for a token of this name.
pub(crate) fn claim(name: &[u8]) -> Claim {
    let (key, window) = (Name::digest_of(name), Name::digest_of(b"endpoint"));
    let limits = Limits::new(Duration::from_secs(15), Some(5), MINUTE);
    Claim::new(key, window, Name::random().unwrap(), limits)
}

/// A claim that takes nothing.
pub(crate) fn look(name: &[u8]) -> Claim {
    let mut look = claim(name);
    look.may_fetch = false;
    look
}

/// The end of a claim, whose place is free at once.
pub(crate) fn finish(claim: &Claim) -> Finish {
    let (key, window) = (claim.key.clone(), claim.window.clone());
    Finish::new(key, window, claim.holder.clone(), Duration::ZERO)
}
