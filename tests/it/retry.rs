//! `RetryUnauthorized`: one replay after a 401 whose token was replaced.

use bytes::Bytes;
use http_body_util::Full;
use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{ErrorKind, OfficeRndAuthLayer, SkipAuth, TokenRejected};
use tokio::task::JoinHandle;
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_test::mock;

use crate::support::{
    Request, Response, Server, Stopwatch, URL, answer, challenge, credentials, default_layer, get,
    ms, next, s, serve, settle, warm_layer,
};

/// `with_retry` over a mock.
fn client(layer: &OfficeRndAuthLayer) -> (impl Exchange, Server) {
    let (inner, server) = mock::pair();
    (layer.clone().with_retry().layer(inner), server)
}

trait Exchange: Send + Clone + 'static {
    fn start(&self, request: Request) -> JoinHandle<Result<Response, BoxError>>;
}

impl<S> Exchange for S
where
    S: Service<Request, Response = Response, Error = BoxError> + Send + Clone + 'static,
    S::Future: Send,
{
    fn start(&self, request: Request) -> JoinHandle<Result<Response, BoxError>> {
        let call = self.clone().oneshot(request);
        let call = tokio::time::timeout(s(3600), call);
        tokio::spawn(async { call.await? })
    }
}

/// Whether nothing but these exchanges reached the server.
async fn is_idle(server: &mut Server) -> bool {
    settle().await;
    tokio::time::sleep(s(1)).await;
    server.poll_request().is_pending()
}

#[tokio::test(start_paused = true)]
async fn a_401_is_replayed_once_with_the_new_token_and_nobody_sees_it() {
    let provider = ScriptedProvider::new().latency(s(2));
    let (client, mut server) = client(&default_layer(&provider));
    let request = http::Request::post(URL)
        .header("x-one", "1")
        .body("the body".into())
        .unwrap();
    let call = client.start(request);
    for (token, status) in [("Bearer scripted-1", 401), ("Bearer scripted-2", 200)] {
        let (request, reply) = next(&mut server).await;
        assert_eq!(credentials(&request), [token]);
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.headers()["x-one"], "1");
        assert_eq!(*request.body(), "the body");
        reply.send_response(answer(status));
    }
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.extensions().is_empty());
    assert!(is_idle(&mut server).await);
}

#[tokio::test(start_paused = true)]
async fn a_second_401_is_the_callers_even_if_a_newer_token_is_there() {
    for newer in [false, true] {
        let layer = warm_layer(&ScriptedProvider::new()).await;
        let (client, mut server) = client(&layer);
        let call = client.start(get(URL));
        assert_eq!(serve(&mut server, answer(401)).await, ["Bearer scripted-1"]);
        let (request, reply) = next(&mut server).await;
        assert_eq!(credentials(&request), ["Bearer scripted-2"]);
        if newer {
            layer.cache().refresh().await.unwrap();
        }
        reply.send_response(answer(401));
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), 401);
        let rejected = response.extensions().get::<TokenRejected>().unwrap();
        assert_eq!(rejected.generation(), 2);
        assert!(is_idle(&mut server).await);
    }
}

#[tokio::test(start_paused = true)]
async fn if_no_replacement_comes_the_replay_carries_the_last_resort_token() {
    let provider = ScriptedProvider::new();
    let layer = warm_layer(&provider).await;
    provider.set_latency(s(1));
    provider.push(Step::Fail(ErrorKind::Denied));
    let (client, mut server) = client(&layer);
    let call = client.start(get(URL));
    for status in [401, 200] {
        assert_eq!(
            serve(&mut server, answer(status)).await,
            ["Bearer scripted-1"]
        );
    }
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert!(is_idle(&mut server).await);
}

#[tokio::test(start_paused = true)]
async fn while_rejections_are_damped_nothing_is_replayed() {
    let provider = ScriptedProvider::new();
    let layer = warm_layer(&provider).await;
    let (client, mut server) = client(&layer);
    // The replacement is rejected too.
    let call = client.start(get(URL));
    serve(&mut server, answer(401)).await;
    serve(&mut server, answer(401)).await;
    call.await.unwrap().unwrap();

    for _ in 0..10 {
        let call = client.start(get(URL));
        assert_eq!(serve(&mut server, answer(401)).await, ["Bearer scripted-2"]);
        assert_eq!(call.await.unwrap().unwrap().status(), 401);
    }
    assert!(is_idle(&mut server).await);
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_for_at_most_the_acquire_timeout() {
    let provider = ScriptedProvider::new();
    let timeout = s(5);
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .fetch_timeout(s(60))
        .acquire_timeout(timeout)
        .build()
        .unwrap();
    layer.cache().token().await.unwrap();
    provider.push(Step::Hang);
    let (client, mut server) = client(&layer);

    let call = client.start(get(URL));
    serve(&mut server, answer(401)).await;
    let rejected = Stopwatch::start();
    assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-1"]);
    let waited = rejected.elapsed();
    assert!(waited >= timeout, "{waited:?}");
    assert!(waited < timeout + ms(10), "{waited:?}");
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_late_401_of_an_older_token_is_replayed_without_a_fetch() {
    let provider = ScriptedProvider::new();
    let layer = warm_layer(&provider).await;
    let (client, mut server) = client(&layer);
    let call = client.start(get(URL));
    let (_, reply) = next(&mut server).await;
    layer.cache().refresh().await.unwrap();
    reply.send_response(answer(401));
    assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-2"]);
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(provider.calls(), 2);
    assert!(!layer.cache().status().rejected);
}

#[tokio::test(start_paused = true)]
async fn what_no_new_token_cures_is_not_replayed() {
    let provider = ScriptedProvider::new();
    let layer = warm_layer(&provider).await;
    let (client, mut server) = client(&layer);
    for response in [
        answer(200),
        answer(403),
        answer(503),
        challenge(401, r#"Bearer error="insufficient_scope""#),
    ] {
        let status = response.status();
        let call = client.start(get(URL));
        serve(&mut server, response).await;
        assert_eq!(call.await.unwrap().unwrap().status(), status);
    }

    let mut skipping = get(URL);
    skipping.extensions_mut().insert(SkipAuth);
    let call = client.start(skipping);
    serve(&mut server, answer(401)).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 401);

    let call = client.start(get(URL));
    let (_, reply) = next(&mut server).await;
    reply.send_error("reset by peer");
    assert_eq!(
        call.await.unwrap().unwrap_err().to_string(),
        "reset by peer"
    );

    assert!(is_idle(&mut server).await);
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_401s_is_replayed_over_one_fetch_also_below_a_limit_of_one() {
    let provider = ScriptedProvider::new();
    let layer = warm_layer(&provider).await;
    provider.set_latency(s(1));
    for limit in [20, 1] {
        let (inner, mut server) = mock::pair::<Request, Response>();
        let old = format!("Bearer scripted-{}", provider.calls());
        let calls = provider.calls();
        let client = layer
            .clone()
            .with_retry()
            .layer(ConcurrencyLimit::new(inner, limit));
        let requests: Vec<_> = (0..20).map(|_| client.start(get(URL))).collect();
        drop(client);
        let serving = tokio::spawn(async move {
            while let Some((request, reply)) = server.next_request().await {
                let rejected = credentials(&request) == [&*old];
                reply.send_response(answer(if rejected { 401 } else { 200 }));
            }
        });
        for request in requests {
            assert_eq!(request.await.unwrap().unwrap().status(), 200);
        }
        serving.await.unwrap();
        assert_eq!(provider.calls(), calls + 1);
        // So that the next 401 is the first in a row again.
        tokio::time::sleep(s(300)).await;
    }
}

mod over_reqwest {
    use reqwest::Body;

    use super::*;

    fn post(body: Body) -> reqwest::Request {
        let mut request = reqwest::Request::new(reqwest::Method::POST, URL.parse().unwrap());
        *request.body_mut() = Some(body);
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_can_be_cloned_is_replayed() {
        let layer = warm_layer(&ScriptedProvider::new()).await;
        let (inner, mut server) = mock::pair::<reqwest::Request, reqwest::Response>();
        let client = layer.with_retry().layer(inner);
        let call = tokio::spawn(client.oneshot(post(Body::from("the body"))));
        for (token, status) in [("Bearer scripted-1", 401), ("Bearer scripted-2", 200)] {
            let (request, reply) = next(&mut server).await;
            assert_eq!(request.headers()["authorization"], token);
            let body = request.body().and_then(Body::as_bytes);
            assert_eq!(body, Some(&b"the body"[..]));
            reply.send_response(answer(status).into());
        }
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_streaming_bodys_401_comes_back_untouched() {
        let layer = warm_layer(&ScriptedProvider::new()).await;
        let (inner, mut server) = mock::pair::<reqwest::Request, reqwest::Response>();
        let client = layer.clone().with_retry().layer(inner);
        let body = Body::wrap(Full::new(Bytes::from_static(b"once")));
        let request = post(body);
        assert!(request.try_clone().is_none());

        let call = tokio::spawn(client.oneshot(request));
        let (_, reply) = next(&mut server).await;
        let unauthorized = http::Response::builder()
            .status(401)
            .body("why not")
            .unwrap();
        reply.send_response(unauthorized.into());
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.extensions().get::<TokenRejected>().is_some());
        assert_eq!(response.text().await.unwrap(), "why not");

        // The token was replaced all the same.
        settle().await;
        assert_eq!(layer.cache().status().generation, 2);
    }
}
