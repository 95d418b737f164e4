//! An OfficeRnD in memory, and the caches that the benches compare on it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode, Uri};
use officernd_auth::{AccessToken, Error, ErrorKind, OfficeRndAuthLayer, RateLimit, provider_fn};
use tokio::time::Instant;
use tower::util::BoxCloneService;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use super::lazy::lazy;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) const GOOD: &str = "https://app.officernd.com/api/v2/organizations/acme/locations";
pub(crate) const FORBIDDEN: &str = "https://app.officernd.com/api/v2/organizations/acme/forbidden";

/// A token endpoint and an API. Time is tokio's, so a bench can simulate it.
#[derive(Clone)]
pub(crate) struct World {
    latency: Duration,
    life: Duration,
    /// Token requests in any minute.
    limit: usize,
    facts: Arc<Mutex<Facts>>,
}

pub(crate) struct Facts {
    start: Instant,
    arrivals: VecDeque<Instant>,
    /// When each token expires.
    pub(crate) issued: Vec<Instant>,
    pub(crate) token_requests: u64,
    pub(crate) down: bool,
    /// How long before its expiry the API refuses a token.
    pub(crate) dies_early: Duration,
    /// The number of the last revoked token.
    pub(crate) revoked: usize,
}

impl World {
    pub(crate) fn new(latency: Duration, life: Duration, limit: usize) -> Self {
        let facts = Facts {
            start: Instant::now(),
            arrivals: VecDeque::new(),
            issued: Vec::new(),
            token_requests: 0,
            down: false,
            dies_early: Duration::ZERO,
            revoked: 0,
        };
        Self {
            latency,
            life,
            limit,
            facts: Arc::new(Mutex::new(facts)),
        }
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn time(&self) -> Duration {
        self.facts().start.elapsed()
    }

    /// Returns a new token of about 1,000 characters, and when it expires.
    async fn fetch(&self, secret_is_revoked: bool) -> Result<(String, Instant), ErrorKind> {
        let asked = Instant::now();
        let result = {
            let mut facts = self.facts();
            facts.token_requests += 1;
            facts.arrivals.retain(|at| asked - *at < MINUTE);
            facts.arrivals.push_back(asked);
            if facts.down {
                Err(ErrorKind::Transport)
            } else if facts.arrivals.len() > self.limit {
                Err(ErrorKind::RateLimited)
            } else if secret_is_revoked {
                Err(ErrorKind::InvalidClient)
            } else {
                let expires = asked + self.life;
                facts.issued.push(expires);
                let number = facts.issued.len();
                Ok((format!("{number}.{}", "a".repeat(990)), expires))
            }
        };
        tokio::time::sleep(self.latency).await;
        result
    }

    /// Returns the status of the API's response.
    fn status(&self, request: &Request<()>) -> StatusCode {
        let header = request.headers().get(AUTHORIZATION);
        // Reads only the number: comparing 1,000 characters would hide the cost of the cache.
        let number = header
            .and_then(|header| header.as_bytes().strip_prefix(b"Bearer "))
            .and_then(|token| token.split(|byte| *byte == b'.').next())
            .and_then(|number| std::str::from_utf8(number).ok()?.parse().ok())
            .unwrap_or(0_usize);
        let facts = self.facts();
        let expires = facts.issued.get(number.wrapping_sub(1));
        let good = expires.is_some_and(|expires| Instant::now() + facts.dies_early < *expires)
            && number > facts.revoked
            && !request.uri().path().ends_with("forbidden");
        match good {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        }
    }
}

pub(crate) type Client = BoxCloneService<Request<()>, Response<()>, BoxError>;

/// A client of the API by the way in which it caches its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Sends no token.
    Control,
    /// A correct lazy single flight.
    Lazy,
    /// Lazy, and drops a token that got a 401.
    OnEvery401,
    Ours,
    /// Ours, with a replay after a 401.
    OursWithRetry,
}

impl Cache {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Lazy => "lazy",
            Self::OnEvery401 => "on every 401",
            Self::Ours => "ours",
            Self::OursWithRetry => "ours with retry",
        }
    }

    pub(crate) fn client(
        self,
        world: &World,
        rate_limit: &RateLimit,
        secret_is_revoked: bool,
    ) -> Result<Client, BoxError> {
        let api = world.clone();
        let api = service_fn(move |request: Request<()>| {
            let mut response = Response::new(());
            *response.status_mut() = api.status(&request);
            ready(Ok::<_, Infallible>(response))
        });
        let world = world.clone();
        if self == Self::Control {
            return Ok(BoxCloneService::new(api.map_err(Into::into)));
        }
        if matches!(self, Self::Lazy | Self::OnEvery401) {
            let fetch = move || {
                let world = world.clone();
                async move {
                    let fetched = world.fetch(secret_is_revoked).await;
                    Ok(fetched.map_err(|kind| format!("{kind:?}"))?)
                }
            };
            let lazy = lazy(api, fetch, self == Self::OnEvery401);
            return Ok(BoxCloneService::new(lazy));
        }
        let provider = provider_fn(move || {
            let world = world.clone();
            async move {
                match world.fetch(secret_is_revoked).await {
                    Ok((token, _)) => AccessToken::bearer(token, world.life),
                    Err(kind) => Err(Error::new(kind, "no token")),
                }
            }
        });
        let layer = OfficeRndAuthLayer::builder(provider)
            .rate_limit(rate_limit.clone())
            .build()?;
        Ok(match self {
            Self::OursWithRetry => BoxCloneService::new(layer.with_retry().layer(api)),
            _ => BoxCloneService::new(layer.layer(api)),
        })
    }
}

/// Sends a request and returns `true` if the API accepts its token.
pub(crate) async fn succeeds(client: Client, url: &'static str) -> bool {
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_static(url);
    let response = client.oneshot(request).await;
    response.is_ok_and(|response| response.status() == StatusCode::OK)
}
