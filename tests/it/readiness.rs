//! The tower contract, over services that panic when called un-readied.
//!
//! The clock stands still: a deadlock is not waited for but found, since the
//! timeout fires as soon as nothing else can run.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{ErrorKind, OfficeRndAuth, OfficeRndAuthLayer};
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::support::{
    Request, Response, URL, answer, default_layer, get, kind, ms, over_mock, poll, s, send,
    warm_layer,
};

/// A provider that takes its time, so that requests overlap.
fn slow() -> ScriptedProvider {
    ScriptedProvider::new().latency(s(1))
}

async fn serve(request: Request) -> Result<Response, Infallible> {
    assert!(request.headers().contains_key("authorization"));
    tokio::time::sleep(ms(5)).await;
    Ok(answer(200))
}

/// A whole exchange of a client in use: ready, call, response.
async fn exchange<S>(client: &mut S, uri: &str) -> Result<Response, BoxError>
where
    S: Service<Request, Response = Response, Error = BoxError>,
{
    let exchange = async { client.ready().await?.call(get(uri)).await };
    let deadlock = |_| Err("deadlock".into());
    tokio::time::timeout(s(600), exchange)
        .await
        .unwrap_or_else(deadlock)
}

fn is_ready<S: Service<Request>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(())))
}

/// Every way to use a client many times; the cache may be cold.
async fn works_in_every_way<S>(client: S)
where
    S: Service<Request, Response = Response, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { exchange(&mut client, URL).await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let mut one = client.clone();
    for _ in 0..100 {
        exchange(&mut one, URL).await.unwrap();
        exchange(&mut client.clone(), URL).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_or_a_buffer_below_works_cold_and_warm_over_one_fetch() {
    let limit = || ConcurrencyLimit::new(service_fn(serve), 1);
    for warm in [false, true] {
        let (one, two, three) = (slow(), slow(), slow());
        let layers = [&one, &two, &three].map(default_layer);
        if warm {
            for layer in &layers {
                layer.cache().token().await.unwrap();
            }
        }
        works_in_every_way(layers[0].layer(limit())).await;
        works_in_every_way(layers[1].layer(Buffer::new(limit(), 1))).await;
        works_in_every_way(layers[2].layer(Buffer::new(limit(), 10))).await;
        assert_eq!([one.calls(), two.calls(), three.calls()], [1; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn poll_ready_is_the_inner_services_own() {
    let layer = warm_layer(&ScriptedProvider::new()).await;
    let (mut client, mut server) = over_mock(&layer);
    server.allow(0);
    assert!(!is_ready(&mut client));
    server.allow(1);
    assert!(is_ready(&mut client));
    server.send_error("worn out");
    let error = client.ready().await.unwrap_err();
    assert_eq!(error.to_string(), "worn out");
    assert_eq!(kind(&error), None);
}

#[tokio::test(start_paused = true)]
async fn poll_ready_never_waits_for_a_token_nor_fetches_one() {
    // A fetch that hangs is tried once more.
    let provider = ScriptedProvider::new()
        .then(Step::Hang)
        .then(Step::Hang)
        .then(Step::Fail(ErrorKind::Denied));
    let layer = default_layer(&provider);
    let (mut client, _server) = over_mock(&layer);
    assert!(is_ready(&mut client));
    assert_eq!(provider.calls(), 0);

    // While a fetch hangs; then after a failure, within its hold.
    for _ in 0..2 {
        let refresh = tokio::spawn({
            let cache = layer.cache().clone();
            async move { cache.refresh().await }
        });
        tokio::time::sleep(s(1)).await;
        assert!(is_ready(&mut client.clone()));
        assert!(refresh.await.unwrap().is_err());
        tokio::time::sleep(s(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_holds_its_permit_and_gives_it_back_when_dropped() {
    let inner = ConcurrencyLimit::new(service_fn(serve), 1);
    let provider = ScriptedProvider::new().then(Step::Hang);
    let mut client = default_layer(&provider).layer(inner);
    {
        let mut waiting = pin!(send(&mut client, get(URL)));
        assert!(poll(waiting.as_mut()).is_pending());
        // The readied service is in the future; what stayed behind is another.
        assert!(!is_ready(&mut client));
    }
    assert!(is_ready(&mut client));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_no_token_gives_its_permit_back_while_its_future_still_lives() {
    let inner = ConcurrencyLimit::new(service_fn(serve), 1);
    let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::Denied));
    let mut client = default_layer(&provider).layer(inner);
    let mut response = pin!(send(&mut client, get(URL)));
    assert!(response.as_mut().await.is_err());
    assert!(is_ready(&mut client));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_gives_its_permit_back() {
    // One clone a connection, each kept: as in any proxy.
    let inner = ConcurrencyLimit::new(service_fn(serve), 1);
    let mut one = default_layer(&ScriptedProvider::new()).layer(inner);
    let mut two = one.clone();
    let error = exchange(&mut one, "https://evil.example/").await;
    assert_eq!(kind(&error.unwrap_err()), Some(ErrorKind::ForeignOrigin));
    exchange(&mut two, URL).await.unwrap();
    exchange(&mut one, URL).await.unwrap();
}

/// Ready for one call once its own `poll_ready` said so; a clone starts over.
#[derive(Debug, Default)]
struct Strict {
    readied: bool,
    clones: usize,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            readied: false,
            clones: self.clones + 1,
        }
    }
}

impl Service<Request> for Strict {
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.readied = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.readied), "called un-readied");
        let mut response = answer(200);
        response.extensions_mut().insert(self.clones);
        std::future::ready(Ok(response))
    }
}

#[tokio::test(start_paused = true)]
async fn the_very_service_that_was_readied_is_called_and_a_clone_made_only_on_a_miss() {
    let mut client: OfficeRndAuth<Strict> =
        OfficeRndAuthLayer::new(slow()).layer(Strict::default());
    // The miss: the original goes along, its clone stays.
    // The hits: no clones from here on.
    for clones in [0_usize, 1, 1, 1] {
        let response = exchange(&mut client, URL).await.unwrap();
        assert_eq!(response.extensions().get(), Some(&clones));
    }
}
