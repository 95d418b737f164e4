//! What the tests share: caches over scripted providers, layers over mocks, simulated services, logs.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use officernd_auth::middleware::{AuthRequest, AuthResponse, ResponseFuture};
use officernd_auth::testing::{ManualClock, ScriptedProvider};
use officernd_auth::{
    AccessToken, BoxError, Builder, ClientCredentials, Error, ErrorKind, HttpTokenProvider,
    OfficeRndAuth, OfficeRndAuthLayer, RateLimit, TokenCache, TokenProvider,
};
use officernd_simulator::Simulator;
use tower::{Layer, Service};
use tower_test::mock::{self, Handle, Mock, SendResponse};
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

pub(crate) const URL: &str = "https://app.officernd.com/api/v2/organizations/acme/members";

/// Ends a test that hangs; nothing is tuned to it.
pub(crate) const GENEROUS: Duration = s(60);

pub(crate) type Request = http::Request<Bytes>;
pub(crate) type Response = http::Response<Bytes>;
pub(crate) type Inner = Mock<Request, Response>;
pub(crate) type Client = OfficeRndAuth<Inner>;
pub(crate) type Server = Handle<Request, Response>;

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A cache of this provider without jitter and without a rate limit, unless
/// `set` says otherwise.
pub(crate) fn cache_with(
    provider: &(impl TokenProvider + Clone),
    set: impl FnOnce(Builder) -> Builder,
) -> TokenCache {
    let builder = OfficeRndAuthLayer::builder(provider.clone())
        .refresh_ahead(s(300))
        .jitter(0.0)
        .rate_limit(RateLimit::unlimited());
    set(builder).build().unwrap().cache().clone()
}

/// The same, on a clock that is stepped by hand.
pub(crate) fn stepped(provider: &ScriptedProvider) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = cache_with(provider, |builder| builder.clock(clock.clone()));
    (cache, clock)
}

/// Lets every task run until none has anything left to do now.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What the future has to say without any waiting.
pub(crate) fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match poll(pin!(future)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What goes out on a request.
pub(crate) fn header(token: &AccessToken) -> &str {
    token.header_value().to_str().unwrap()
}

/// The header of what a caller got.
pub(crate) fn served(result: &Result<AccessToken, Error>) -> &str {
    match result {
        Ok(token) => header(token),
        Err(error) => panic!("no token: {error:?}"),
    }
}

/// The header of what goes out now, without any waiting.
pub(crate) fn now(cache: &TokenCache) -> Option<String> {
    cache.try_token().map(|token| header(&token).to_owned())
}

/// Measures on tokio's clock, paused or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(tokio::time::Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock themselves"
)]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The layer over a mock that panics when it is called un-readied.
pub(crate) fn over_mock(layer: &OfficeRndAuthLayer) -> (Client, Server) {
    let (inner, server) = mock::pair();
    (layer.layer(inner), server)
}

/// The credentials of this simulator's app.
pub(crate) fn app_of(officernd: &Simulator) -> ClientCredentials {
    ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url())
}

/// A layer over this simulator.
pub(crate) fn simulated_layer(officernd: &Simulator) -> OfficeRndAuthLayer {
    layer_of(app_of(officernd), officernd)
}

/// A layer of an app over this simulator.
pub(crate) fn layer_of(app: ClientCredentials, officernd: &Simulator) -> OfficeRndAuthLayer {
    OfficeRndAuthLayer::builder(HttpTokenProvider::new(app).unwrap())
        .allow_origin(officernd.url())
        .build()
        .unwrap()
}

pub(crate) fn default_layer(provider: &ScriptedProvider) -> OfficeRndAuthLayer {
    OfficeRndAuthLayer::new(provider.clone())
}

/// A layer that has its first token.
pub(crate) async fn warm_layer(provider: &ScriptedProvider) -> OfficeRndAuthLayer {
    let layer = default_layer(provider);
    layer.cache().token().await.unwrap();
    layer
}

pub(crate) fn get(uri: &str) -> Request {
    http::Request::get(uri).body(Bytes::new()).unwrap()
}

pub(crate) fn answer(status: u16) -> Response {
    http::Response::builder()
        .status(status)
        .body(Bytes::new())
        .unwrap()
}

/// A 401 or 403 with one challenge.
pub(crate) fn challenge(status: u16, challenge: &'static str) -> Response {
    let mut response = answer(status);
    let value = http::HeaderValue::from_static(challenge);
    response.headers_mut().append("www-authenticate", value);
    response
}

/// Asks for readiness, which must be there, and calls.
pub(crate) fn send<S, Req>(
    client: &mut OfficeRndAuth<S>,
    request: Req,
) -> ResponseFuture<S::Future, S, Req>
where
    S: Service<Req> + Clone,
    S::Response: AuthResponse,
    S::Error: Into<BoxError>,
    Req: AuthRequest,
{
    let mut cx = Context::from_waker(Waker::noop());
    let ready = client.poll_ready(&mut cx);
    assert!(matches!(ready, Poll::Ready(Ok(()))), "not ready");
    client.call(request)
}

/// The error of a request that is refused at once.
pub(crate) fn refuse<S, Req>(client: &mut OfficeRndAuth<S>, request: Req) -> BoxError
where
    S: Service<Req> + Clone,
    S::Response: AuthResponse,
    S::Error: Into<BoxError>,
    Req: AuthRequest,
{
    match poll(pin!(send(client, request))) {
        Poll::Ready(Err(error)) => error,
        Poll::Ready(Ok(_)) => panic!("sent"),
        Poll::Pending => panic!("sent, or waits"),
    }
}

pub(crate) fn no_request(server: &mut Server) -> bool {
    server.poll_request().is_pending()
}

/// The values of `Authorization`, all of them.
pub(crate) fn credentials<B>(request: &http::Request<B>) -> Vec<&str> {
    let values = request.headers().get_all(AUTHORIZATION).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// The next request; on a clock that stands still its absence is found, not
/// waited for.
pub(crate) async fn next<T, U>(server: &mut Handle<T, U>) -> (T, SendResponse<U>) {
    let next = tokio::time::timeout(Duration::from_secs(3600), server.next_request());
    next.await.unwrap().unwrap()
}

/// The next request's credentials; it is answered so.
pub(crate) async fn serve(server: &mut Server, response: Response) -> Vec<String> {
    let (request, reply) = next(server).await;
    reply.send_response(response);
    let values = credentials(&request).into_iter();
    values.map(str::to_owned).collect()
}

pub(crate) fn kind(error: &BoxError) -> Option<ErrorKind> {
    Error::find(error).map(Error::kind)
}

/// All that a log may show of an error: the whole chain, with `Display` and `Debug`.
pub(crate) fn shown(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text += &format!("{error}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    text
}

/// What this thread traces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Starts a log, which ends when the guards are dropped. A runtime with one thread runs fetches on it too.
    pub(crate) fn start(level: LevelFilter, spans: FmtSpan) -> (Self, (Dispatch, DefaultGuard)) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_span_events(spans)
            .with_ansi(false)
            .with_writer(log.clone());
        (log, set_subscriber(subscriber.finish()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// While tracing knows of one subscriber only, a callsite that another test's thread meets first is off for good.
pub(crate) fn set_subscriber(subscriber: impl Into<Dispatch>) -> (Dispatch, DefaultGuard) {
    let second = Dispatch::new(tracing_subscriber::registry());
    (second, tracing::dispatcher::set_default(&subscriber.into()))
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
