//! What a token layer has to do on every request, each duty by itself and as
//! small as it can be: together they are the least that a layer like ours costs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HOST};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// All of them and the header in one service, as small as it can be.
#[derive(Clone)]
pub(crate) struct Duties<S> {
    inner: S,
    value: HeaderValue,
    host: &'static str,
    expires_at: i64,
}

pub(crate) struct DutiesLayer {
    pub(crate) value: HeaderValue,
}

impl<S> Layer<S> for DutiesLayer {
    type Service = Duties<S>;

    fn layer(&self, inner: S) -> Duties<S> {
        Duties {
            inner,
            value: self.value.clone(),
            host: OFFICERND,
            expires_at: seconds() + 3_600,
        }
    }
}

impl<S> Service<Request<()>> for Duties<S>
where
    S: Service<Request<()>, Response = Response<()>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Watching<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<()>) -> Watching<S::Future> {
        assert!(goes_to(&request, self.host), "a foreign origin");
        assert!(seconds() < self.expires_at, "the token has expired");
        let value = self.value.clone();
        request.headers_mut().insert(AUTHORIZATION, value);
        let inner = self.inner.call(request);
        Watching { inner, token: 1 }
    }
}

const OFFICERND: &str = "app.officernd.com";

/// Whether the URI names this host, and no `Host` header another one.
#[inline(always)]
fn goes_to(request: &Request<()>, host: &str) -> bool {
    let uri = request.uri();
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let headers = request.headers();
    uri.scheme() == Some(&Scheme::HTTPS)
        && authority == Some(host)
        && (!headers.keys().any(|name| *name == HOST)
            || headers.get(HOST).is_some_and(|h| h == host))
}

/// Looks whether the token has expired: one reading of the coarse clock, the
/// cheapest that notices a suspend.
#[derive(Clone)]
pub(crate) struct Fresh<S>(S, i64);

/// Looks whether the request goes where the token may go.
#[derive(Clone)]
pub(crate) struct Guard<S>(S, &'static str);

/// Looks whether the answer is a 401 to our token.
#[derive(Clone)]
pub(crate) struct Watch<S>(S);

pub(crate) struct FreshLayer;
pub(crate) struct GuardLayer;
pub(crate) struct WatchLayer;

impl<S> Layer<S> for FreshLayer {
    type Service = Fresh<S>;

    fn layer(&self, inner: S) -> Fresh<S> {
        Fresh(inner, seconds() + 3_600)
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard(inner, OFFICERND)
    }
}

impl<S> Layer<S> for WatchLayer {
    type Service = Watch<S>;

    fn layer(&self, inner: S) -> Watch<S> {
        Watch(inner)
    }
}

#[cfg(target_os = "linux")]
fn seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}

#[cfg(not(target_os = "linux"))]
fn seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64)
}

impl<S: Service<Request<()>>> Service<Request<()>> for Fresh<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> S::Future {
        assert!(seconds() < self.1, "the token has expired");
        self.0.call(request)
    }
}

impl<S: Service<Request<()>>> Service<Request<()>> for Guard<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> S::Future {
        assert!(goes_to(&request, self.1), "a foreign origin");
        self.0.call(request)
    }
}

impl<S> Service<Request<()>> for Watch<S>
where
    S: Service<Request<()>, Response = Response<()>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Watching<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Watching<S::Future> {
        let inner = self.0.call(request);
        Watching { inner, token: 1 }
    }
}

pin_project! {
    pub(crate) struct Watching<F> {
        #[pin]
        inner: F,
        // Whose token it was has to be known when the answer comes.
        token: u64,
    }
}

impl<F: Future<Output = Result<Response<()>, E>>, E> Future for Watching<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        assert!(
            response.status() != StatusCode::UNAUTHORIZED,
            "token {} was rejected",
            this.token
        );
        Poll::Ready(Ok(response))
    }
}
