//! The contenders, and the loop that drives them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::hint;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::duties::{DutiesLayer, FreshLayer, GuardLayer, WatchLayer};
use http::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::provider::{KeyMaterial, KeyedProvider};
use officernd_auth::{
    AccessToken, Error, FetchContext, OfficeRndAuthLayer, RateLimit, StaticToken, TokenProvider,
};
use officernd_auth_store::{SharedTokenProvider, testing::MemoryStore};
use tokio::sync::RwLock;
use tower::layer::util::Identity;
use tower::{BoxError, Layer, Service};
use tower_http::auth::AddAuthorizationLayer;

/// As long as the tokens of OfficeRnD.
const TOKEN_LENGTH: usize = 1_000;

/// Sends so many requests, one after the other.
pub(crate) type Lane = Box<dyn FnMut(usize) + Send>;

/// What happens to the service between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Held,
    /// `service.clone()` for each request, as `oneshot` wants it.
    Cloned,
    /// Held, and each request has a `Host` header. Clients add that below their
    /// layers, so nearly no request that a layer sees has one.
    WithHost,
}

impl Use {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Cloned => "cloned",
            Self::WithHost => "host",
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Held => "service held",
            Self::Cloned => "service cloned",
            Self::WithHost => "service held, requests with a Host header",
        }
    }
}

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) future_bytes: usize,
    lane: Box<dyn Fn(Use) -> Lane>,
}

/// All contenders; the baseline first.
pub(crate) fn all() -> Result<Vec<Contender>, BoxError> {
    let token = token();
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    let mut leaked = HeaderValue::from_static(format!("Bearer {token}").leak());
    leaked.set_sensitive(true);
    let static_layer = AddAuthorizationLayer::bearer(&token).as_sensitive(true);
    let naive = NaiveLayer {
        token: Arc::new(RwLock::new(token.clone())),
    };
    let ours = OfficeRndAuthLayer::new(StaticToken::new(token.clone())?);
    let keyed = Keyed(StaticToken::new(token)?);
    let shared = SharedTokenProvider::new(keyed, MemoryStore::new());
    let shared = OfficeRndAuthLayer::new(shared);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ours.cache().warm_up())?;
    runtime.block_on(shared.cache().warm_up())?;
    let acme = HashMap::from([("acme".to_owned(), ours.clone())]);
    let organizations = OrganizationsLayer::new(acme);
    let mut known = organizations.layer(Sink);
    runtime.block_on(known.call(request(false)))?;
    Ok(vec![
        Contender::new(
            "bare",
            "the inner service alone: the baseline",
            Identity::new(),
        ),
        Contender::checked(
            "limit",
            "insert(AUTHORIZATION, value.clone()), nothing else",
            LimitLayer::new(&value),
        )?,
        Contender::new("clock", "duty: has the token expired?", FreshLayer),
        Contender::new("origin", "duty: may it go there?", GuardLayer),
        Contender::new("answer", "duty: was it rejected?", WatchLayer),
        Contender::checked(
            "duties",
            "limit and the three duties in one: the least for a layer like ours",
            DutiesLayer {
                value: value.clone(),
            },
        )?,
        Contender::checked(
            "unshared",
            "the limit with leaked bytes: no count that threads share",
            LimitLayer { value: leaked },
        )?,
        Contender::checked(
            "tower-http",
            "AddAuthorizationLayer::bearer, a token for ever",
            static_layer,
        )?,
        Contender::checked("naive", "RwLock<String> + format! + a box", naive)?,
        Contender::checked("ours", "OfficeRndAuthLayer", ours)?,
        Contender::checked(
            "organization",
            "one of several organizations",
            organizations,
        )?,
        Contender::checked(SHARED, "the same, its token shared through a store", shared)?,
    ])
}

/// A store must not show in a hit.
pub(crate) const SHARED: &str = "ours+store";

/// A token that knows what it depends on, as a store wants it.
struct Keyed(StaticToken);

impl TokenProvider for Keyed {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        self.0.fetch(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.0.rate_limit()
    }
}

impl KeyedProvider for Keyed {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        Ok(KeyMaterial::new(
            "https://identity.test/oauth/token",
            "client",
            "secret",
        ))
    }
}

pub(crate) fn token() -> String {
    "mF_9.B5f-4.1JqM"
        .chars()
        .cycle()
        .take(TOKEN_LENGTH)
        .collect()
}

impl Contender {
    fn new<L>(name: &'static str, what: &'static str, layer: L) -> Self
    where
        L: Layer<Sink> + 'static,
        L::Service: Service<Request<()>> + Clone + Send,
    {
        let future_bytes = size_of::<<L::Service as Service<Request<()>>>::Future>();
        let lane = move |how| -> Lane {
            let mut service = layer.layer(Sink);
            match how {
                Use::Held => Box::new(move |requests| drive_held(&mut service, requests)),
                Use::Cloned => Box::new(move |requests| drive_cloned(&service, requests)),
                Use::WithHost => Box::new(move |requests| drive_with_host(&mut service, requests)),
            }
        };
        Self {
            name,
            what,
            future_bytes,
            lane: Box::new(lane),
        }
    }

    /// Only who puts exactly the token on three requests takes part.
    pub(crate) fn checked<L>(
        name: &'static str,
        what: &'static str,
        layer: L,
    ) -> Result<Self, BoxError>
    where
        L: Layer<Sink> + Layer<Observer> + 'static,
        <L as Layer<Sink>>::Service: Service<Request<()>> + Clone + Send,
        <L as Layer<Observer>>::Service: Service<Request<()>> + Clone,
    {
        let observer = Observer::default();
        let mut service = layer.layer(observer.clone());
        drive_held(&mut service, 2);
        drive_cloned(&service, 1);
        let seen = observer.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = format!("Bearer {}", token());
        let right = |headers: &&HeaderMap| headers.get_all(AUTHORIZATION).iter().eq([&wanted]);
        if seen.len() != 3 || seen.iter().filter(right).count() != 3 {
            return Err(format!("{name} does not put the token on its requests").into());
        }
        Ok(Self::new(name, what, layer))
    }

    /// A loop over a service of its own; all services are of one layer.
    pub(crate) fn lane(&self, how: Use) -> Lane {
        (self.lane)(how)
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What `instructions` has callgrind count: functions of this name. Theirs
/// holds no closure, whose name would start with it.
pub(crate) const COUNTED: &str = "*drive_*";

#[inline(never)]
fn drive_held<S: Service<Request<()>>>(service: &mut S, requests: usize) {
    for _ in 0..requests {
        send(service, request(false));
    }
}

#[inline(never)]
fn drive_with_host<S: Service<Request<()>>>(service: &mut S, requests: usize) {
    for _ in 0..requests {
        send(service, request(true));
    }
}

#[inline(never)]
fn drive_cloned<S: Service<Request<()>> + Clone>(service: &S, requests: usize) {
    for _ in 0..requests {
        send(&mut service.clone(), request(false));
    }
}

#[inline(always)]
fn send<S: Service<Request<()>>>(service: &mut S, request: Request<()>) {
    drive(service, hint::black_box(request));
}

/// One request to its end, without a runtime.
#[inline(always)]
pub(crate) fn drive<S: Service<Request<()>>>(service: &mut S, request: Request<()>) {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        panic!("the inner service is always ready");
    };
    let mut response = pin!(service.call(request));
    loop {
        match response.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(response)) => {
                hint::black_box(response);
                return;
            }
            Poll::Ready(Err(_)) => panic!("the inner service never fails"),
            // Waits for a lock, which the other thread is about to release.
            Poll::Pending => hint::spin_loop(),
        }
    }
}

/// A URI and four headers, in three allocations.
#[inline(always)]
pub(crate) fn request(with_host: bool) -> Request<()> {
    let uri = match Uri::try_from("https://app.officernd.com/api/v2/organizations/acme/abc") {
        Ok(uri) => uri,
        Err(error) => panic!("{error}"),
    };
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    let (name, value) = match with_host {
        true => (HOST, "app.officernd.com"),
        false => (ACCEPT_LANGUAGE, "en-GB"),
    };
    headers.insert(name, HeaderValue::from_static(value));
    headers.insert(USER_AGENT, const { HeaderValue::from_static("bench/1.0") });
    headers.insert(
        ACCEPT,
        const { HeaderValue::from_static("application/json") },
    );
    headers.insert(
        const { HeaderName::from_static("x-request-id") },
        const { HeaderValue::from_static("0123456789abcdef") },
    );
    request
}

/// The inner service: drops the request.
#[derive(Debug, Clone)]
pub(crate) struct Sink;

impl Service<Request<()>> for Sink {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        drop(hint::black_box(request));
        ready(Ok(Response::new(())))
    }
}

/// The inner service of the check: keeps the headers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observer {
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Service<Request<()>> for Observer {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(request.headers().clone());
        ready(Ok(Response::new(())))
    }
}

/// The least that a layer can do.
struct LimitLayer {
    value: HeaderValue,
}

impl LimitLayer {
    fn new(value: &HeaderValue) -> Self {
        let value = value.clone();
        Self { value }
    }
}

#[derive(Clone)]
struct Limit<S> {
    inner: S,
    value: HeaderValue,
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        let value = self.value.clone();
        Limit { inner, value }
    }
}

impl<S: Service<Request<()>>> Service<Request<()>> for Limit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<()>) -> S::Future {
        let value = self.value.clone();
        request.headers_mut().insert(AUTHORIZATION, value);
        self.inner.call(request)
    }
}

/// What people write on an afternoon.
struct NaiveLayer {
    token: Arc<RwLock<String>>,
}

#[derive(Clone)]
struct Naive<S> {
    inner: S,
    token: Arc<RwLock<String>>,
}

impl<S> Layer<S> for NaiveLayer {
    type Service = Naive<S>;

    fn layer(&self, inner: S) -> Naive<S> {
        let token = Arc::clone(&self.token);
        Naive { inner, token }
    }
}

impl<S> Service<Request<()>> for Naive<S>
where
    S: Service<Request<()>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let mut inner = self.inner.clone();
        let token = Arc::clone(&self.token);
        Box::pin(async move {
            let token = token.read().await.clone();
            let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            request.headers_mut().insert(AUTHORIZATION, value);
            inner.call(request).await.map_err(Into::into)
        })
    }
}
