//! What becomes of one request: every branch, polled by hand.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST, LOCATION, WWW_AUTHENTICATE};
use http_body_util::Empty;
use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::provider::Cause;
use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{
    BoxError, ErrorKind, OfficeRndAuthLayer, Settings, SkipAuth, StaticToken, TokenRejected,
};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirectLayer;

use crate::support::{
    Request, URL, answer, challenge, credentials, default_layer, get, kind, ms, next, no_request,
    over_mock, poll, refuse, s, send, serve, settle, warm_layer,
};

/// A caller's own credentials, two of them.
fn with_own_credentials(mut request: Request) -> Request {
    for value in ["Bearer the-users-own", "Basic dTpw"] {
        let value = HeaderValue::from_static(value);
        request.headers_mut().append(AUTHORIZATION, value);
    }
    request
}

fn skipping(mut request: Request) -> Request {
    request.extensions_mut().insert(SkipAuth);
    request
}

const OWN: [&str; 2] = ["Bearer the-users-own", "Basic dTpw"];

#[tokio::test(start_paused = true)]
async fn a_hit_calls_the_inner_service_before_the_future_is_polled_and_changes_only_the_authorization()
 {
    let layer = warm_layer(&ScriptedProvider::new()).await;
    let (mut client, mut server) = over_mock(&layer);
    let request = http::Request::post(URL)
        .version(http::Version::HTTP_2)
        .header("x-one", "1")
        .extension(7_u8)
        .body("the body".into())
        .unwrap();

    let mut response = pin!(send(&mut client, request));
    let Poll::Ready(Some((request, reply))) = server.poll_request() else {
        panic!("the inner service was not called");
    };
    assert_eq!(credentials(&request), ["Bearer scripted-1"]);
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(request.uri(), URL);
    assert_eq!(request.version(), http::Version::HTTP_2);
    assert_eq!(request.headers()["x-one"], "1");
    assert_eq!(request.headers().len(), 2);
    assert_eq!(request.extensions().get(), Some(&7_u8));
    assert_eq!(*request.body(), "the body");

    assert!(poll(response.as_mut()).is_pending());
    reply.send_response(answer(200));
    assert!(
        matches!(poll(response.as_mut()), Poll::Ready(Ok(response)) if response.status() == 200)
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_miss_wait_for_one_fetch_and_then_call_the_inner_service() {
    let provider = ScriptedProvider::new().latency(s(1));
    let (mut client, mut server) = over_mock(&default_layer(&provider));
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(send(&mut client, get(URL))))
        .collect();
    settle().await;
    assert!(no_request(&mut server));
    for _ in &calls {
        assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-1"]);
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(provider.causes(), [Cause::Cold]);
}

#[tokio::test(start_paused = true)]
async fn a_miss_that_gets_no_token_fails_and_the_inner_service_is_never_called() {
    let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::InvalidClient));
    let (mut client, mut server) = over_mock(&default_layer(&provider));

    // The fetch fails; then its failure is remembered.
    for _ in 0..2 {
        let error = send(&mut client, get(URL)).await.unwrap_err();
        assert_eq!(kind(&error), Some(ErrorKind::InvalidClient));
    }
    assert!(no_request(&mut server));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn skip_auth_sends_this_one_request_as_it_is() {
    let provider = ScriptedProvider::new();
    let (mut client, mut server) = over_mock(&default_layer(&provider));
    for request in [
        skipping(get(URL)),
        skipping(get("http://elsewhere.example/")),
        skipping(with_own_credentials(get(URL))),
    ] {
        let wanted: Vec<String> = credentials(&request).into_iter().map(Into::into).collect();
        let _response = send(&mut client, request);
        assert_eq!(serve(&mut server, answer(200)).await, wanted);
    }
    settle().await;
    assert_eq!(provider.calls(), 0);

    let _call = tokio::spawn(send(&mut client, get(URL)));
    assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-1"]);
}

/// tower-http drops the extensions of a request that it redirects.
#[tokio::test]
async fn a_redirect_layer_above_drops_skip_auth_so_the_redirected_request_is_authorized() {
    let sent = async |keep: bool, location: &'static str| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let api = tower::service_fn(move |request: http::Request<Empty<Bytes>>| {
            let (path, bearers) = (request.uri().path(), credentials(&request));
            record.lock().unwrap().push(bearers.concat());
            let response = match path {
                "/skipped" => http::Response::builder()
                    .status(307)
                    .header(LOCATION, location),
                _ => http::Response::builder(),
            };
            let response = response.body(Empty::<Bytes>::new()).unwrap();
            async { Ok::<_, BoxError>(response) }
        });
        let builder = OfficeRndAuthLayer::builder(StaticToken::new("abc").unwrap());
        let builder = if keep {
            builder.if_not_present()
        } else {
            builder
        };
        let client = tower::ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(builder.build().unwrap())
            .service(api);
        let request = http::Request::get("https://app.officernd.com/skipped")
            .header(AUTHORIZATION, OWN[0])
            .extension(SkipAuth)
            .body(Empty::<Bytes>::new());
        let response = client.oneshot(request.unwrap()).await;
        let kind = response.err().and_then(|error| kind(&error));
        (kind, std::mem::take(&mut *seen.lock().unwrap()))
    };
    let both = |second: &str| vec![OWN[0].to_owned(), second.to_owned()];
    assert_eq!(sent(false, "/moved").await, (None, both("Bearer abc")));
    assert_eq!(sent(true, "/moved").await, (None, both(OWN[0])));
    // `SkipAuth` switched off the check of the first origin, not of the second.
    let (kind, seen) = sent(false, "https://elsewhere.example/").await;
    assert_eq!(kind, Some(ErrorKind::ForeignOrigin));
    assert_eq!(seen, [OWN[0]]);
}

#[tokio::test(start_paused = true)]
async fn all_values_of_a_callers_authorization_are_replaced_by_one_that_is_sensitive() {
    let (mut client, mut server) = over_mock(&default_layer(&ScriptedProvider::new()));
    // A miss, then a hit.
    for _ in 0..2 {
        let call = tokio::spawn(send(&mut client, with_own_credentials(get(URL))));
        let (request, reply) = next(&mut server).await;
        assert_eq!(credentials(&request), ["Bearer scripted-1"]);
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        reply.send_response(answer(200));
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn if_not_present_keeps_a_callers_authorization_and_adds_where_there_is_none() {
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
        .if_not_present()
        .build()
        .unwrap();
    let (mut client, mut server) = over_mock(&layer);

    let _own = send(&mut client, with_own_credentials(get(URL)));
    assert_eq!(serve(&mut server, answer(200)).await, OWN);

    let _ours = tokio::spawn(send(&mut client, get(URL)));
    assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-1"]);
}

#[tokio::test]
async fn by_default_the_token_goes_to_the_two_api_hosts_only() {
    let token = || StaticToken::new("abc").unwrap();
    let inner = tower::service_fn(|request: Request| async move {
        assert_eq!(credentials(&request), ["Bearer abc"]);
        Ok::<_, BoxError>(answer(200))
    });
    let read: Settings = serde_json::from_str("{}").unwrap();
    let acme = OfficeRndAuthLayer::new(token());
    let organizations = OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]));
    let mut clients = vec![BoxCloneService::new(organizations.layer(inner))];
    for layer in [
        OfficeRndAuthLayer::new(token()),
        OfficeRndAuthLayer::builder(token()).build().unwrap(),
        Settings::default().builder(token()).build().unwrap(),
        read.builder(token()).build().unwrap(),
    ] {
        clients.push(BoxCloneService::new(layer.layer(inner)));
    }
    let path = "api/v1/organizations/acme/members";
    for client in clients {
        for host in ["app.officernd.com", "hybrid.officernd.com"] {
            let request = get(&format!("https://{host}/{path}"));
            client.clone().oneshot(request).await.unwrap();
        }
        for host in ["customer", "help", "staging", "eu"] {
            let host = format!("{host}.officernd.com");
            let request = get(&format!("https://{host}/{path}"));
            let error = client.clone().oneshot(request).await.unwrap_err();
            assert_eq!(kind(&error), Some(ErrorKind::ForeignOrigin), "{host}");
            let cure = format!("allow_origin(\"https://{host}\")");
            assert!(error.to_string().contains(&cure), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_origin_is_refused_and_costs_no_token_request() {
    let provider = ScriptedProvider::new();
    let keeps_own = OfficeRndAuthLayer::builder(provider.clone()).if_not_present();
    for layer in [default_layer(&provider), keeps_own.build().unwrap()] {
        let (mut client, mut server) = over_mock(&layer);
        let error = refuse(
            &mut client,
            with_own_credentials(get("https://evil.example/")),
        );
        assert_eq!(kind(&error), Some(ErrorKind::ForeignOrigin));
        assert!(no_request(&mut server));
        settle().await;
    }
    assert_eq!(provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_header_that_names_another_host_than_the_uri_is_refused() {
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new())
        .allow_any_https_origin()
        .build()
        .unwrap();
    layer.cache().token().await.unwrap();
    let (mut client, mut server) = over_mock(&layer);
    let with_hosts = |hosts: &[&str]| {
        let mut request = get(URL);
        for host in hosts {
            let value = HeaderValue::from_bytes(host.as_bytes()).unwrap();
            request.headers_mut().append(HOST, value);
        }
        request
    };
    for hosts in [
        &["evil.example"][..],
        &["app.officernd.com.evil.example"],
        &["app.officernd.com:8443"],
        &["app.officernd.com:80"],
        &["me@app.officernd.com"],
        &["APP.OfficeRnD.com"],
        &["app.officernd.com:443"],
        &["app.officernd.com", "evil.example"],
        &["evil.example", "app.officernd.com"],
        &[""],
        &["app.officernd.com\u{e9}"],
    ] {
        let error = refuse(&mut client, with_hosts(hosts));
        assert_eq!(kind(&error), Some(ErrorKind::ForeignOrigin), "{hosts:?}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
    assert!(no_request(&mut server));
    let _response = send(&mut client, with_hosts(&["app.officernd.com"]));
    let sent = serve(&mut server, answer(200)).await;
    assert_eq!(sent, ["Bearer scripted-1"]);
    // The inner service knows where an origin-form URI goes.
    let mut relative = with_hosts(&["gateway.example"]);
    *relative.uri_mut() = http::Uri::from_static("/api/v2");
    let _response = send(&mut client, relative);
    let sent = serve(&mut server, answer(200)).await;
    assert_eq!(sent, ["Bearer scripted-1"]);

    let layer = OfficeRndAuthLayer::from_cache(layer.cache().clone())
        .pass_foreign_origins()
        .build()
        .unwrap();
    let (mut client, mut server) = over_mock(&layer);
    let _response = send(&mut client, with_hosts(&["evil.example"]));
    assert_eq!(serve(&mut server, answer(200)).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn pass_foreign_origins_sends_such_requests_on_without_a_token() {
    let provider = ScriptedProvider::new();
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .pass_foreign_origins()
        .build()
        .unwrap();
    let (mut client, mut server) = over_mock(&layer);
    for uri in [
        "https://elsewhere.example/",
        "http://app.officernd.com/",
        "app.officernd.com:443",
    ] {
        let _response = send(&mut client, get(uri));
        assert_eq!(serve(&mut server, answer(200)).await, [""; 0], "{uri}");
    }
    // What the caller sends there of its own is the caller's business.
    let _response = send(
        &mut client,
        with_own_credentials(get("https://elsewhere.example/")),
    );
    assert_eq!(serve(&mut server, answer(200)).await, OWN);
    settle().await;
    assert_eq!(provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn layers_over_one_cache_share_its_token_under_their_own_policies() {
    let provider = ScriptedProvider::new();
    let strict = warm_layer(&provider).await;
    let proxy = OfficeRndAuthLayer::from_cache(strict.cache().clone())
        .pass_foreign_origins()
        .build()
        .unwrap();
    let (mut strict, _server) = over_mock(&strict);
    let (mut proxy, mut server) = over_mock(&proxy);

    refuse(&mut strict, get("https://evil.example/"));
    let _foreign = send(&mut proxy, get("https://evil.example/"));
    assert_eq!(serve(&mut server, answer(200)).await, [""; 0]);
    let _ours = send(&mut proxy, get(URL));
    assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-1"]);
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_401_marks_the_response_and_heals_in_the_background() {
    let provider = ScriptedProvider::new();
    // A miss, so that the waiting path leads to the same end.
    let (mut client, mut server) = over_mock(&default_layer(&provider));

    let call = tokio::spawn(send(&mut client, get(URL)));
    serve(
        &mut server,
        challenge(401, r#"Bearer error="invalid_token""#),
    )
    .await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), 401);
    let rejected = response.extensions().get::<TokenRejected>().unwrap();
    assert_eq!(rejected.generation(), 1);

    settle().await;
    assert_eq!(provider.causes(), [Cause::Cold, Cause::Rejected]);
    let _next = send(&mut client, get(URL));
    assert_eq!(serve(&mut server, answer(200)).await, ["Bearer scripted-2"]);
}

#[tokio::test(start_paused = true)]
async fn other_statuses_missing_scopes_and_401s_to_requests_without_our_token_reject_nothing() {
    let provider = ScriptedProvider::new();
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .pass_foreign_origins()
        .if_not_present()
        .build()
        .unwrap();
    layer.cache().token().await.unwrap();
    let (mut client, mut server) = over_mock(&layer);
    let scope = challenge(401, r#"Bearer error="insufficient_scope", scope="x""#);
    let mut second = challenge(401, r#"Basic realm="x""#);
    let value = HeaderValue::from_static(r#"Bearer realm="a, b", error="insufficient_scope""#);
    second.headers_mut().append(WWW_AUTHENTICATE, value);
    let others = [200, 302, 400, 403, 404, 407, 429, 500, 503];
    let others = others.map(|status| {
        (
            get(URL),
            challenge(status, r#"Bearer error="invalid_token""#),
        )
    });
    let rows = [
        (get(URL), scope),
        (get(URL), second),
        (skipping(get(URL)), answer(401)),
        (get("https://elsewhere.example/"), answer(401)),
        (with_own_credentials(get(URL)), answer(401)),
    ];
    for (request, response) in others.into_iter().chain(rows) {
        let status = response.status();
        let call = tokio::spawn(send(&mut client, request));
        serve(&mut server, response).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), status);
        assert!(response.extensions().is_empty(), "{status}");
    }
    settle().await;
    assert_eq!(provider.calls(), 1);
    assert!(!layer.cache().status().rejected);
}

#[tokio::test(start_paused = true)]
async fn an_inner_error_passes_through_as_it_is() {
    let provider = ScriptedProvider::new();
    let (mut client, mut server) = over_mock(&default_layer(&provider));
    // A miss, then a hit.
    for _ in 0..2 {
        let call = tokio::spawn(send(&mut client, get(URL)));
        next(&mut server).await.1.send_error(std::fmt::Error);
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(kind(&error), None);
        assert!(error.is::<std::fmt::Error>());
    }
    settle().await;
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_failed_only_waits_when_polled_again() {
    let provider = ScriptedProvider::new().then(Step::Fail(ErrorKind::Denied));
    let (mut client, _server) = over_mock(&default_layer(&provider));
    for uri in ["https://evil.example/", URL] {
        let mut response = pin!(send(&mut client, get(uri)));
        assert!(response.as_mut().await.is_err());
        assert!(poll(response.as_mut()).is_pending(), "{uri}");
    }
}

mod over_reqwest {
    //! The same branches for `reqwest::Request`, as far as they differ.

    use officernd_simulator::Simulator;
    use tower::ServiceExt;
    use tower_test::mock;

    use super::*;
    use crate::raw::{Raw, Script};
    use crate::support::simulated_layer;

    type Server = mock::Handle<reqwest::Request, reqwest::Response>;

    fn get(url: &str) -> reqwest::Request {
        reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap())
    }

    async fn serve(server: &mut Server, status: u16) -> reqwest::Request {
        let (request, reply) = next(server).await;
        reply.send_response(answer(status).into());
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_gets_the_token_and_a_401_marks_the_response() {
        let provider = ScriptedProvider::new();
        let (inner, mut server) = mock::pair();
        let mut client = default_layer(&provider).layer(inner);
        for generation in 1..=2 {
            let mut request = get(URL);
            for value in OWN {
                let value = HeaderValue::from_static(value);
                request.headers_mut().append(AUTHORIZATION, value);
            }
            let call = tokio::spawn(send(&mut client, request));
            let request = serve(&mut server, 401).await;
            let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
            assert_eq!(values, [&format!("Bearer scripted-{generation}")]);
            assert!(values[0].is_sensitive());
            let response = call.await.unwrap().unwrap();
            let rejected = response.extensions().get::<TokenRejected>().unwrap();
            assert_eq!(rejected.generation(), generation);
            settle().await;
        }
        let call = tokio::spawn(send(&mut client, get(URL)));
        let (_, reply) = next(&mut server).await;
        reply.send_response(challenge(401, r#"Bearer error="insufficient_scope""#).into());
        let response = call.await.unwrap().unwrap();
        assert!(response.extensions().get::<TokenRejected>().is_none());
    }

    #[tokio::test]
    async fn a_401_that_a_redirect_leads_to_counts_like_any_other() {
        let start = || Simulator::builder().start();
        let (ours, elsewhere) = (start().await.unwrap(), start().await.unwrap());
        let layer = simulated_layer(&ours);
        layer.cache().token().await.unwrap();
        let location = format!("{}/api/v2/organizations/x/locations", elsewhere.url());
        let redirect =
            format!("HTTP/1.1 307 Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let redirects = Raw::start(Script::Answer(redirect.into_bytes())).await;
        let url = &redirects.url;
        let layer = OfficeRndAuthLayer::from_cache(layer.cache().clone())
            .allow_origin(&redirects.origin())
            .build()
            .unwrap();
        let client = layer.layer(reqwest::Client::new());
        let response = client.oneshot(get(url)).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.url().as_str().starts_with(elsewhere.url()));
        assert!(response.extensions().get::<TokenRejected>().is_some());
        let sent = redirects.seen().concat().to_ascii_lowercase();
        assert!(sent.contains("authorization: bearer"));
        assert_eq!(elsewhere.requests()[0].authorization(), None);
        // It costs one token request.
        while layer.cache().status().generation < 2 {
            tokio::time::sleep(ms(5)).await;
        }
        assert_eq!(ours.token_requests(), 2);
    }
}
