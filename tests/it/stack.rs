//! What the tests of the request path share.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use officernd_auth::middleware::{AuthRequest, AuthResponse, ResponseFuture};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    BoxError, ClientCredentials, Error, ErrorKind, HttpTokenProvider, OfficeRndAuth,
    OfficeRndAuthLayer,
};
use officernd_simulator::Simulator;
use tower::{Layer, Service};
use tower_test::mock::{self, Handle, Mock, SendResponse};

pub(crate) const URL: &str = "https://app.officernd.com/api/v2/organizations/acme/members";

pub(crate) type Request = http::Request<Bytes>;
pub(crate) type Response = http::Response<Bytes>;
pub(crate) type Inner = Mock<Request, Response>;
pub(crate) type Client = OfficeRndAuth<Inner>;
pub(crate) type Server = Handle<Request, Response>;

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
    OfficeRndAuthLayer::builder(HttpTokenProvider::new(app_of(officernd)).unwrap())
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
    response
        .headers_mut()
        .append(http::header::WWW_AUTHENTICATE, value);
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

pub(crate) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
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

/// Lets the tasks of this one-threaded runtime run until they all wait.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
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
