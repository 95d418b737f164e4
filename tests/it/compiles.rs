//! What the types promise: most of this has passed when it compiles.

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use officernd_auth::middleware::{AuthRequest, AuthResponse, ResponseFuture};
use officernd_auth::organizations::{OrganizationsAuth, OrganizationsLayer};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{
    AccessToken, ConfigError, Error, ErrorKind, FetchContext, OfficeRndAuth, OfficeRndAuthLayer,
    RateLimit, RetryUnauthorized, SkipAuth, StaticToken, TokenCache, TokenRejected, TokenStatus,
};
use tokio::task::LocalSet;
use tower::util::{BoxCloneService, BoxCloneSyncService, BoxService};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::stack::{
    Inner, Request, Response, URL, default_layer, get, kind, over_mock, send, warm_layer,
};

fn send_static<T: Send + 'static>(_: &T) {}

#[tokio::test]
async fn a_service_a_body_and_a_response_that_stay_on_their_thread_work_cold_and_warm() {
    let layer = default_layer(&ScriptedProvider::new());
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let inner = service_fn(move |request: http::Request<Rc<str>>| {
        let calls = Rc::clone(&counted);
        async move {
            tokio::task::yield_now().await;
            assert!(request.headers().contains_key("authorization"));
            calls.set(calls.get() + 1);
            Ok::<_, Infallible>(http::Response::new(request.into_body()))
        }
    });
    let client = layer.layer(inner);
    let local = LocalSet::new();
    local
        .run_until(async {
            for _ in 0..2 {
                let request = http::Request::get(URL).body(Rc::from("local")).unwrap();
                let call = tokio::task::spawn_local(client.clone().oneshot(request));
                assert_eq!(&**call.await.unwrap().unwrap().body(), "local");
            }
        })
        .await;
    assert_eq!(calls.get(), 2);
}

#[tokio::test]
async fn a_body_may_borrow_and_need_be_neither_clone_nor_debug() {
    struct Borrowed<'a>(&'a str);
    fn echo<B>(request: http::Request<B>) -> Ready<Result<http::Response<B>, Infallible>> {
        ready(Ok(http::Response::new(request.into_body())))
    }
    let text = String::from("borrowed");
    let request = http::Request::get(URL).body(Borrowed(&text)).unwrap();
    let client = default_layer(&ScriptedProvider::new()).layer(service_fn(echo));
    let Borrowed(body) = client.oneshot(request).await.unwrap().into_body();
    assert_eq!(body, text);
}

#[tokio::test]
async fn the_response_future_is_send_when_the_inner_one_is() {
    let layer = warm_layer(&ScriptedProvider::new()).await;
    let (mut client, _server) = over_mock(&layer);
    let future: ResponseFuture<<Inner as Service<Request>>::Future, Inner, Request> =
        send(&mut client, get(URL));
    send_static(&future);

    fn send_type<T: Send>() {}
    send_type::<<OfficeRndAuth<reqwest::Client> as Service<reqwest::Request>>::Future>();
}

/// A hit moves the future, so its size is part of the cost.
#[test]
fn the_response_future_is_one_pointer_larger_than_the_inner_one() {
    fn extra<S, Req>() -> usize
    where
        S: Service<Req> + Clone,
        S::Response: AuthResponse,
        S::Error: Into<BoxError>,
        Req: AuthRequest,
    {
        let ours = size_of::<<OfficeRndAuth<S> as Service<Req>>::Future>();
        ours - size_of::<S::Future>()
    }
    assert!(extra::<Inner, Request>() <= size_of::<usize>());
    assert!(extra::<reqwest::Client, reqwest::Request>() <= size_of::<usize>());
}

#[test]
fn the_public_types_go_where_a_service_goes() {
    fn clone_send_sync<T: Clone + Send + Sync + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    clone_send_sync::<OfficeRndAuthLayer>();
    clone_send_sync::<OfficeRndAuth<reqwest::Client>>();
    clone_send_sync::<OrganizationsLayer>();
    clone_send_sync::<OrganizationsAuth<reqwest::Client>>();
    clone_send_sync::<TokenCache>();
    clone_send_sync::<AccessToken>();
    clone_send_sync::<Error>();
    clone_send_sync::<RateLimit>();
    clone_send_sync::<RetryUnauthorized>();
    clone_send_sync::<SkipAuth>();
    clone_send_sync::<TokenRejected>();
    clone_send_sync::<FetchContext>();
    clone_send_sync::<StaticToken>();
    clone_send_sync::<TokenStatus>();
    shared::<ConfigError>();
    fn copy<T: Copy>() {}
    copy::<SkipAuth>();
    copy::<ErrorKind>();
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    error::<Error>();
    error::<ConfigError>();
    fn serialize<T: serde::Serialize>() {}
    serialize::<TokenStatus>();
}

#[tokio::test]
async fn the_response_future_tells_its_state_and_nothing_else() {
    let layer = default_layer(&ScriptedProvider::new());
    let (mut client, _server) = over_mock(&layer);
    let waiting = send(&mut client, get(URL));
    let refused = send(&mut client, get("https://evil.example"));
    layer.cache().token().await.unwrap();
    let sent = send(&mut client, get(URL));
    let shown = format!("{waiting:?} {refused:?} {sent:?}");
    assert!(shown.contains("waiting") && shown.contains("refused") && shown.contains("sent"));
    assert!(!shown.contains("scripted"));
}

#[tokio::test]
async fn a_client_can_be_stored_without_its_type() {
    let layer = warm_layer(&ScriptedProvider::new()).await;
    let inner =
        service_fn(|_: Request| async { Ok::<Response, Infallible>(Response::new(Bytes::new())) });
    let client = layer.layer(inner);
    let stored: BoxCloneService<Request, Response, BoxError> = BoxCloneService::new(client.clone());
    stored.clone().oneshot(get(URL)).await.unwrap();
    let stored: BoxCloneSyncService<Request, Response, BoxError> =
        BoxCloneSyncService::new(client.clone());
    stored.oneshot(get(URL)).await.unwrap();
    BoxService::new(client).oneshot(get(URL)).await.unwrap();

    let organizations =
        OrganizationsLayer::new(HashMap::from([("acme".to_owned(), layer.clone())]));
    let client = organizations.layer(inner);
    let stored: BoxCloneSyncService<Request, Response, BoxError> = BoxCloneSyncService::new(client);
    stored.oneshot(get(URL)).await.unwrap();

    let _stored: BoxCloneService<reqwest::Request, reqwest::Response, BoxError> =
        ServiceBuilder::new()
            .layer(layer.with_retry())
            .service(reqwest::Client::new())
            .boxed_clone();
}

#[tokio::test]
async fn the_types_around_a_reqwest_client_are_inferred() {
    let layer = default_layer(&ScriptedProvider::new());
    let inner = reqwest::Client::new();
    let mut client = ServiceBuilder::new().layer(layer).service(inner.clone());

    let request = inner.get("https://evil.example/").build().unwrap();
    let error = client
        .ready()
        .await
        .unwrap()
        .call(request)
        .await
        .unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::ForeignOrigin));

    // Not called: it would go to the network.
    let _unpolled = async move {
        let request = inner.get(URL).build()?;
        let response = client.ready().await?.call(request).await?;
        Ok::<String, BoxError>(response.error_for_status()?.text().await?)
    };
}

#[tokio::test]
async fn the_types_around_a_hyper_client_are_inferred_and_its_error_is_not_ours() {
    // A port without a listener: bound, then closed.
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
        .allow_origin(&format!("http://127.0.0.1:{port}"))
        .build()
        .unwrap();
    let inner = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .build::<_, Empty<Bytes>>(HttpConnector::new());
    let mut client = ServiceBuilder::new().layer(layer).service(inner);
    let request = http::Request::get(format!("http://127.0.0.1:{port}/"))
        .body(Empty::new())
        .unwrap();
    let error = client
        .ready()
        .await
        .unwrap()
        .call(request)
        .await
        .unwrap_err();
    assert_eq!(kind(&error), None);
    assert!(error.is::<hyper_util::client::legacy::Error>(), "{error:?}");
}

#[tokio::test]
async fn a_call_over_a_buffer_whose_error_is_boxed_can_be_spawned() {
    let layer = OfficeRndAuthLayer::new(StaticToken::new("abc").unwrap());
    let echo = tower::service_fn(|_: http::Request<()>| async {
        Ok::<_, tower::BoxError>(http::Response::new(()))
    });
    let client = tower::ServiceBuilder::new()
        .layer(layer)
        .buffer(4)
        .service(echo);
    tokio::spawn(async move {
        use tower::{Service, ServiceExt};
        let mut client = client;
        let request = http::Request::get("https://app.officernd.com/")
            .body(())
            .unwrap();
        client.ready().await.unwrap().call(request).await.unwrap();
    })
    .await
    .unwrap();
}

/// Builds tests/wrong_client.rs with what this test was built with.
#[test]
fn a_client_of_another_version_is_one_readable_error() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "test",
            "--locked",
            "--offline",
            "--workspace",
            "--all-features",
        ])
        .args(["--no-run", "--test", "wrong_client"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("error[E").count(), 1, "{errors}");
    for part in [
        "error[E0277]: officernd-auth cannot put a token on a `reqwest::Request`",
        "let _client = layer.client(reqwest012::Client::new());",
        "reqwest 0.13",
        "cookbook",
    ] {
        assert!(errors.contains(part), "no {part:?} in {errors}");
    }
}

#[tokio::test]
async fn the_paved_constructor_takes_the_supported_clients() {
    let layer = default_layer(&ScriptedProvider::new());
    let _reqwest: OfficeRndAuth<reqwest::Client> = layer.client(reqwest::Client::new());
    let hyper = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    let _hyper = layer.client(hyper.build::<_, Empty<Bytes>>(HttpConnector::new()));
    let _function = layer.client(service_fn(|_: Request| async {
        Ok::<Response, Infallible>(Response::new(Bytes::new()))
    }));
}
