//! Providers, stores and caches for the tests.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use officernd_auth::clock::{Clock, TokioClock};
use officernd_auth::provider::{KeyMaterial, KeyedProvider};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    AccessToken, Builder, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit,
    TokenCache, TokenProvider,
};
use officernd_auth_store::testing::MemoryStore;
use officernd_auth_store::{Claim, Claimed, Finish, SharedTokenProvider, TokenStore};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub(crate) fn now() -> Instant {
    TokioClock.now()
}

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns the value of the `Authorization` header.
pub(crate) fn header(token: &AccessToken) -> &str {
    token.header_value().to_str().unwrap()
}

/// Builds the cache of a layer.
pub(crate) fn cache(builder: Builder) -> TokenCache {
    builder.build().unwrap().cache().clone()
}

/// Makes a cache with this rate limit.
pub(crate) fn limited(provider: impl TokenProvider, rate_limit: &RateLimit) -> TokenCache {
    cache(OfficeRndAuthLayer::builder(provider).rate_limit(rate_limit.clone()))
}

/// Makes a provider and its cache, with a rate limit of its own, as in a separate process.
pub(crate) fn shared<P: KeyedProvider>(
    provider: P,
    store: &(impl TokenStore + Clone),
) -> (SharedTokenProvider<P>, TokenCache) {
    let provider = SharedTokenProvider::new(provider, store.clone());
    let layer = OfficeRndAuthLayer::builder(provider.clone()).rate_limit(RateLimit::new(5, s(60)));
    (provider, cache(layer.jitter(0.0)))
}

/// Makes the cache of [`shared`].
pub(crate) fn pod<P: KeyedProvider>(provider: P, store: &(impl TokenStore + Clone)) -> TokenCache {
    shared(provider, store).1
}

/// Makes `each` concurrent calls to every pod.
pub(crate) async fn call_all(pods: &[TokenCache], each: usize) -> Vec<Result<AccessToken, Error>> {
    let mut calls = JoinSet::new();
    for pod in pods.iter().flat_map(|pod| vec![pod; each]) {
        let pod = pod.clone();
        calls.spawn(async move { pod.token().await });
    }
    calls.join_all().await
}

/// Calls `token` every second until the test ends.
pub(crate) fn drive(cache: &TokenCache) {
    let cache = cache.clone();
    tokio::spawn(async move {
        loop {
            let _ = cache.token().await;
            sleep(s(1)).await;
        }
    });
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A provider that calls closures.
#[derive(Clone)]
pub(crate) struct Provider {
    fetch: Arc<dyn Fn(FetchContext) -> Boxed<Result<AccessToken, Error>> + Send + Sync>,
    material: Arc<dyn Fn() -> Boxed<KeyMaterial> + Send + Sync>,
}

impl Provider {
    /// Fetches with `fetch`, with the credentials of [`ScriptedProvider`].
    pub(crate) fn new<F>(fetch: impl Fn(FetchContext) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<AccessToken, Error>> + Send + 'static,
    {
        let provider = Self {
            fetch: Arc::new(move |cx| Box::pin(fetch(cx))),
            material: Arc::new(|| unreachable!()),
        };
        provider.keyed(|| async { ScriptedProvider::new().key_material().await.unwrap() })
    }

    /// Fetches from `endpoint`.
    pub(crate) fn over(endpoint: &ScriptedProvider) -> Self {
        let endpoint = endpoint.clone();
        Self::new(move |cx| {
            let endpoint = endpoint.clone();
            async move { endpoint.fetch(cx).await }
        })
    }

    /// Sets the function that reads the credentials.
    pub(crate) fn keyed<F>(mut self, material: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = KeyMaterial> + Send + 'static,
    {
        self.material = Arc::new(move || Box::pin(material()));
        self
    }

    /// Sets credentials whose secret can change.
    pub(crate) fn secret(self, secret: &Arc<Mutex<&'static str>>) -> Self {
        let secret = Arc::clone(secret);
        self.keyed(move || {
            let secret = *secret.lock().unwrap();
            ready(KeyMaterial::new("https://token.test/", "id", secret))
        })
    }
}

impl TokenProvider for Provider {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        (self.fetch)(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

impl KeyedProvider for Provider {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        Ok((self.material)().await)
    }
}

type Alter = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

/// A [`MemoryStore`] that can fail, be slow, and return altered entries.
#[derive(Clone, Default)]
pub(crate) struct TestStore {
    pub(crate) model: MemoryStore,
    down: Arc<AtomicBool>,
    /// The durations of a claim and of a finish.
    delays: Arc<Mutex<[Duration; 2]>>,
    operations: Arc<AtomicUsize>,
    alter: Option<Alter>,
    before_grant: Arc<Mutex<Option<Boxed<()>>>>,
}

impl TestStore {
    /// Alters each entry that a claim returns.
    pub(crate) fn altering(
        model: &MemoryStore,
        alter: impl Fn(&mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            model: model.clone(),
            alter: Some(Arc::new(alter)),
            ..Self::default()
        }
    }

    /// Makes a store that fails until [`set_down`](Self::set_down).
    pub(crate) fn down() -> Self {
        let store = Self::default();
        store.set_down(true);
        store
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Sets how long operations take that start from now on.
    pub(crate) fn set_delays(&self, claim: Duration, finish: Duration) {
        *self.delays.lock().unwrap() = [claim, finish];
    }

    /// Runs `work` once: after the store has granted a claim, before the caller gets the grant.
    pub(crate) fn before_grant(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.before_grant.lock().unwrap() = Some(Box::pin(work));
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations.load(Ordering::SeqCst)
    }

    async fn begin(&self, operation: usize) -> Result<(), Error> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        let delay = self.delays.lock().unwrap()[operation];
        sleep(delay).await;
        match self.down.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Store, "down")),
            false => Ok(()),
        }
    }
}

impl TokenStore for TestStore {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        self.begin(0).await?;
        let mut claimed = self.model.claim(claim).await?;
        match (&mut claimed, &self.alter) {
            (Claimed::Entry(entry), Some(alter)) => alter(&mut entry.sealed),
            (Claimed::Granted, _) => {
                let work = self.before_grant.lock().unwrap().take();
                if let Some(work) = work {
                    work.await;
                }
            }
            _ => {}
        }
        Ok(claimed)
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        self.begin(1).await?;
        self.model.finish(finish).await
    }
}
