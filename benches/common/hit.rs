//! Implementations of a hit (a request that finds a token), and the loops that drive them.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use officernd_auth::{OfficeRndAuthLayer, StaticToken};
use tokio::time::Instant;
use tower::{BoxError, Layer as _, Service};
use tower_http::auth::AddAuthorizationLayer;

use super::lazy::lazy;
use super::minimal::Minimal;

/// Sends this number of requests, one after the other.
pub(crate) type Loop = Box<dyn FnMut(usize) + Send>;

/// How a program uses the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// One service for all requests.
    Held,
    /// `service.clone()` for each request, like `oneshot`.
    Cloned,
    /// Held, and each request has a `Host` header. Clients add that header below their layers, so a layer rarely
    /// sees it.
    WithHost,
}

impl Use {
    pub(crate) const ALL: [Self; 3] = [Self::Held, Self::WithHost, Self::Cloned];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Cloned => "cloned",
            Self::WithHost => "host",
        }
    }
}

/// One way to put a token on requests.
pub(crate) struct Implementation {
    pub(crate) name: &'static str,
    start: Box<dyn Fn(Use) -> Loop>,
}

/// Returns all implementations, the inner service alone first.
pub(crate) fn all() -> Result<Vec<Implementation>, BoxError> {
    let token = token();
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    let static_layer = AddAuthorizationLayer::bearer(&token).as_sensitive(true);
    let expires = Instant::now() + Duration::from_secs(3_600);
    let ours = OfficeRndAuthLayer::new(StaticToken::new(token.clone())?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ours.cache().warm_up())?;
    Ok(vec![
        Implementation::unchecked("bare", |inner| inner),
        Implementation::new("tower-http", move |inner| static_layer.layer(inner))?,
        Implementation::new("minimal", move |inner| Minimal::new(inner, value.clone()))?,
        Implementation::new("lazy", move |inner| {
            let token = token.clone();
            lazy(inner, move || ready(Ok((token.clone(), expires))), false)
        })?,
        Implementation::new("ours", move |inner| ours.layer(inner))?,
    ])
}

/// Returns a token of 1,000 characters, the length of OfficeRnD's.
pub(crate) fn token() -> String {
    "mF_9.B5f-4.1JqM".chars().cycle().take(1_000).collect()
}

impl Implementation {
    /// Fails unless the service puts exactly the token on each of three requests.
    pub(crate) fn new<S>(
        name: &'static str,
        service: impl Fn(Sink) -> S + 'static,
    ) -> Result<Self, BoxError>
    where
        S: Service<Request<()>> + Clone + Send + 'static,
    {
        let authorized = Arc::new(AtomicUsize::new(0));
        let mut checked = service(Sink {
            authorized: Some(Arc::clone(&authorized)),
        });
        drive_held(&mut checked, 2);
        drive_cloned(&checked, 1);
        match authorized.load(Ordering::Relaxed) {
            3 => Ok(Self::unchecked(name, service)),
            _ => Err(format!("{name} does not put the token on its requests").into()),
        }
    }

    fn unchecked<S>(name: &'static str, service: impl Fn(Sink) -> S + 'static) -> Self
    where
        S: Service<Request<()>> + Clone + Send + 'static,
    {
        let start = move |how| -> Loop {
            let mut service = service(Sink::default());
            match how {
                Use::Held => Box::new(move |requests| drive_held(&mut service, requests)),
                Use::Cloned => Box::new(move |requests| drive_cloned(&service, requests)),
                Use::WithHost => Box::new(move |requests| drive_with_host(&mut service, requests)),
            }
        };
        let start = Box::new(start);
        Self { name, start }
    }

    /// Returns a loop over a new service.
    pub(crate) fn start(&self, how: Use) -> Loop {
        (self.start)(how)
    }
}

/// Matches the functions whose instructions callgrind counts. They hold no closure, whose name would start with theirs.
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

/// Drives one request to its end, without a runtime.
#[inline(always)]
fn send<S: Service<Request<()>>>(service: &mut S, request: Request<()>) {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        panic!("the inner service is always ready");
    };
    let mut response = pin!(service.call(hint::black_box(request)));
    loop {
        match response.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(response)) => {
                hint::black_box(response);
                return;
            }
            Poll::Ready(Err(_)) => panic!("the inner service never fails"),
            // Waits for a lock that the other thread is about to release.
            Poll::Pending => hint::spin_loop(),
        }
    }
}

/// Builds a request with a URI and four headers, in three allocations.
#[inline(always)]
fn request(with_host: bool) -> Request<()> {
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
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink {
    /// Counts the requests that carry exactly the token.
    authorized: Option<Arc<AtomicUsize>>,
}

impl Sink {
    #[cold]
    fn check(authorized: &AtomicUsize, request: &Request<()>) {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        if values.by_ref().eq([&format!("Bearer {}", token())]) {
            authorized.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Service<Request<()>> for Sink {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        if let Some(authorized) = &self.authorized {
            Self::check(authorized, &request);
        }
        drop(hint::black_box(request));
        ready(Ok(Response::new(())))
    }
}
