//! A token endpoint that takes its time, a server that looks at the tokens,
//! and the layers that people write between the two.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use officernd_auth::{AccessToken, OfficeRndAuthLayer, RateLimit, provider_fn};
use tokio::sync::{Mutex, RwLock};
use tower::layer::util::Identity;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::now;

/// One request, from `oneshot` to its response.
pub(crate) type Shot = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The contenders of the scenes with a slow token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// No token at all.
    Control,
    /// A lock around the token, a fetch outside the lock.
    Naive,
    /// A correct single flight: a lock held over the fetch.
    Lazy,
    Ours,
    /// Ours, at an endpoint that returns the same token with a new life.
    Reissued,
}

impl Keeper {
    pub(crate) const ALL: [Self; 4] = [Self::Control, Self::Naive, Self::Lazy, Self::Ours];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Naive => "naive",
            Self::Lazy => "lazy",
            Self::Ours => "ours",
            Self::Reissued => "reissued",
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Control => "no token at all",
            Self::Naive => "RwLock, fetch outside the lock",
            Self::Lazy => "a correct lazy single flight: Mutex held over the fetch",
            Self::Ours => "OfficeRndAuthLayer",
            Self::Reissued => "OfficeRndAuthLayer, the same token with a new life",
        }
    }

    /// Requests through this keeper's layer, its cache cold.
    pub(crate) fn shot(self, endpoint: &Arc<Endpoint>, server: Server) -> Result<Shot, BoxError> {
        let keep = || Keep {
            endpoint: Arc::clone(endpoint),
            naive: RwLock::new(None),
            lazy: Mutex::new(None),
        };
        Ok(match self {
            Self::Control => shot(Identity::new().layer(server)),
            Self::Naive => shot(Kept::new(server, keep(), false)),
            Self::Lazy => shot(Kept::new(server, keep(), true)),
            Self::Ours | Self::Reissued => {
                let endpoint = Arc::clone(endpoint);
                let provider = provider_fn(move || {
                    let endpoint = Arc::clone(&endpoint);
                    async move {
                        let token = match self {
                            Self::Reissued => endpoint.reissue().await,
                            _ => endpoint.fetch().await.0,
                        };
                        AccessToken::bearer(token, endpoint.life)
                    }
                });
                let layer = OfficeRndAuthLayer::builder(provider)
                    .rate_limit(RateLimit::unlimited())
                    .build()?;
                shot(layer.layer(server))
            }
        })
    }
}

fn shot<S>(service: S) -> Shot
where
    S: Service<Request<()>, Response = Response<()>> + Clone + Send + 'static,
    S::Future: Send,
{
    Box::new(move || {
        let service = service.clone();
        Box::pin(async move {
            let mut request = Request::new(());
            *request.uri_mut() = http::Uri::from_static("https://app.officernd.com/api/v2/abc");
            if service.oneshot(request).await.is_err() {
                panic!("a request failed");
            }
        })
    })
}

/// Counts what it is asked for.
#[derive(Debug)]
pub(crate) struct Endpoint {
    epoch: Instant,
    latency: Duration,
    life: Duration,
    /// Makes a token about 1,000 characters long, at no cost to speak of.
    padding: String,
    fetches: AtomicU64,
    /// When the token dies that it returns again and again.
    reissued_until: AtomicU64,
}

impl Endpoint {
    pub(crate) fn new(latency: Duration, life: Duration) -> Arc<Self> {
        Arc::new(Self {
            epoch: now(),
            latency,
            life,
            padding: "a".repeat(990),
            fetches: AtomicU64::new(0),
            reissued_until: AtomicU64::new(0),
        })
    }

    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// A token that says when it dies, and that moment.
    async fn fetch(&self) -> (String, Instant) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let dies = now() + self.life;
        tokio::time::sleep(self.latency).await;
        let micros = (dies - self.epoch).as_micros();
        (self.token(micros), dies)
    }

    /// The one token, which lives longer from now on.
    async fn reissue(&self) -> String {
        let (_, dies) = self.fetch().await;
        let micros = u64::try_from((dies - self.epoch).as_micros());
        self.reissued_until
            .store(micros.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.token(0)
    }

    fn token(&self, micros: u128) -> String {
        format!("{micros}.{}", self.padding)
    }
}

/// The inner service: knows which tokens live.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Requests without a token that lives.
    pub(crate) refused: Arc<AtomicU64>,
    pub(crate) answered: Arc<AtomicU64>,
}

impl Server {
    pub(crate) fn new(endpoint: &Arc<Endpoint>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            refused: Arc::default(),
            answered: Arc::default(),
        }
    }

    fn accepts(&self, request: &Request<()>) -> bool {
        let token = request.headers().get(AUTHORIZATION);
        // Only what it needs: looking at 1,000 characters is no cost of a layer's.
        let micros = token
            .and_then(|token| token.as_bytes().strip_prefix(b"Bearer "))
            .and_then(|token| token.split(|byte| *byte == b'.').next())
            .and_then(|micros| std::str::from_utf8(micros).ok()?.parse().ok())
            .map(|micros| match micros {
                0 => self.endpoint.reissued_until.load(Ordering::Relaxed),
                micros => micros,
            });
        let dies = micros.map_or(Duration::ZERO, Duration::from_micros);
        self.endpoint.epoch.elapsed() < dies
    }
}

impl Service<Request<()>> for Server {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        if !self.accepts(&request) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(())))
    }
}

/// What `Naive` and `Lazy` share; each uses its own lock.
struct Keep {
    endpoint: Arc<Endpoint>,
    naive: RwLock<Option<(String, Instant)>>,
    lazy: Mutex<Option<(String, Instant)>>,
}

impl Keep {
    async fn naive(&self) -> String {
        if let Some((token, dies)) = &*self.naive.read().await {
            if now() < *dies {
                return token.clone();
            }
        }
        let (token, dies) = self.endpoint.fetch().await;
        *self.naive.write().await = Some((token.clone(), dies));
        token
    }

    async fn lazy(&self) -> String {
        let mut kept = self.lazy.lock().await;
        if let Some((token, dies)) = &*kept {
            if now() < *dies {
                return token.clone();
            }
        }
        let (token, dies) = self.endpoint.fetch().await;
        *kept = Some((token.clone(), dies));
        token
    }
}

#[derive(Clone)]
struct Kept {
    inner: Server,
    keep: Arc<Keep>,
    lazy: bool,
}

impl Kept {
    fn new(inner: Server, keep: Keep, lazy: bool) -> Self {
        let keep = Arc::new(keep);
        Self { inner, keep, lazy }
    }
}

impl Service<Request<()>> for Kept {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let Self { inner, keep, lazy } = self.clone();
        Box::pin(async move {
            let token = if lazy {
                keep.lazy().await
            } else {
                keep.naive().await
            };
            let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            request.headers_mut().insert(AUTHORIZATION, value);
            Ok(inner.oneshot(request).await?)
        })
    }
}
