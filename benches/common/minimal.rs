//! The least code that does what a token layer must do on every request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::Service;

/// Checks the origin and the token's expiry, inserts the header, and looks for a 401.
#[derive(Clone)]
pub(crate) struct Minimal<S> {
    inner: S,
    value: HeaderValue,
    host: &'static str,
    expires_at: i64,
}

impl<S> Minimal<S> {
    pub(crate) fn new(inner: S, value: HeaderValue) -> Self {
        Self {
            inner,
            value,
            host: "app.officernd.com",
            expires_at: seconds() + 3_600,
        }
    }
}

impl<S> Service<Request<()>> for Minimal<S>
where
    S: Service<Request<()>, Response = Response<()>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MinimalFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<()>) -> MinimalFuture<S::Future> {
        assert!(goes_to(&request, self.host), "a foreign origin");
        assert!(seconds() < self.expires_at, "the token has expired");
        let value = self.value.clone();
        request.headers_mut().insert(AUTHORIZATION, value);
        let inner = self.inner.call(request);
        MinimalFuture { inner, token: 1 }
    }
}

/// Returns `true` if the URI has this host, and there is no `Host` header with a different one.
#[inline(always)]
fn goes_to(request: &Request<()>, host: &str) -> bool {
    let uri = request.uri();
    let headers = request.headers();
    uri.scheme() == Some(&Scheme::HTTPS)
        && uri.authority().map(Authority::as_str) == Some(host)
        && (!headers.keys().any(|name| *name == HOST)
            || headers.get(HOST).is_some_and(|value| value == host))
}

/// Reads the coarse clock: the cheapest one that continues while the machine is suspended.
#[cfg(target_os = "linux")]
fn seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}

#[cfg(not(target_os = "linux"))]
fn seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64)
}

pin_project! {
    pub(crate) struct MinimalFuture<F> {
        #[pin]
        inner: F,
        // Identifies the token to reject.
        token: u64,
    }
}

impl<F: Future<Output = Result<Response<()>, E>>, E> Future for MinimalFuture<F> {
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
