//! What the types promise: most of this has passed when it compiles.

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;

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

use crate::support::{Inner, Request, Response, URL, default_layer, get, warm_layer};

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
async fn the_response_future_is_nameable_and_send_when_the_inner_one_is() {
    fn send_type<T: Send>() {}
    send_type::<ResponseFuture<<Inner as Service<Request>>::Future, Inner, Request>>();
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
    fn shared<T: Send + Sync + 'static>() {}
    fn cloned<T: Clone + Send + Sync + 'static>() {}
    fn copied<T: Copy>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    fn serialize<T: serde::Serialize>() {}
    cloned::<(OfficeRndAuthLayer, OfficeRndAuth<reqwest::Client>)>();
    cloned::<(OrganizationsLayer, OrganizationsAuth<reqwest::Client>)>();
    cloned::<(TokenCache, AccessToken, Error, RateLimit, RetryUnauthorized)>();
    cloned::<(
        SkipAuth,
        TokenRejected,
        FetchContext,
        StaticToken,
        TokenStatus,
    )>();
    copied::<(SkipAuth, ErrorKind)>();
    shared::<ConfigError>();
    error::<Error>();
    error::<ConfigError>();
    serialize::<TokenStatus>();
}

#[tokio::test]
async fn a_client_can_be_stored_without_its_type() {
    let layer = warm_layer(&ScriptedProvider::new()).await;
    let inner = service_fn(|_: Request| async { Ok::<_, Infallible>(Response::default()) });
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
async fn a_call_over_a_buffer_whose_error_is_boxed_can_be_spawned() {
    let layer = OfficeRndAuthLayer::new(StaticToken::new("abc").unwrap());
    let echo = service_fn(|_: Request| async { Ok::<_, BoxError>(Response::default()) });
    let mut client = ServiceBuilder::new().layer(layer).buffer(4).service(echo);
    let call = async move { client.ready().await?.call(get(URL)).await };
    tokio::spawn(call).await.unwrap().unwrap();
}

/// Builds tests/wrong_client.rs with what this test was built with.
#[test]
fn a_client_of_another_version_is_one_readable_error() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["test", "--locked", "--offline", "--workspace"])
        .args(["--all-features", "--no-run", "--test", "wrong_client"])
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
