//! A token is nowhere to be read: not in `Debug`, `Display`, an error's chain,
//! the status, nor in what is traced at TRACE.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::testing::{ScriptedProvider, Step};
use officernd_auth::{
    AccessToken, BoxError, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RetryUnauthorized,
    Secret, StaticToken, TokenRejected,
};
use tower::Layer;
use tower::retry::Policy;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::support::{Log, Response, URL, answer, get, next, over_mock, s, send, settle, shown};

/// What every token here begins with.
const SECRET: &str = "scripted-";

/// What was shown.
#[derive(Default)]
struct Page(String);

impl Page {
    fn show(&mut self, what: &dyn std::fmt::Debug) {
        write!(self.0, "{what:?}\n{what:#?}\n").unwrap();
    }

    fn show_error(&mut self, error: &BoxError) {
        self.0 += &shown(error.as_ref());
    }
}

fn token(n: u32) -> Step {
    Step::Token(format!("{SECRET}-{n}").into(), s(3600))
}

#[tokio::test(start_paused = true)]
async fn no_token_is_ever_shown() {
    let mut page = Page::default();
    let (logs, _guard) = Log::start(LevelFilter::TRACE, FmtSpan::FULL);

    let provider = ScriptedProvider::new().then(token(1)).then(token(2));
    let builder = OfficeRndAuthLayer::builder(provider.clone());
    page.show(&builder);
    let layer = builder.build().unwrap();
    page.show(&layer);
    let cache = layer.cache();
    let mut statuses = cache.subscribe();
    let (mut client, mut server) = over_mock(&layer);
    page.show(&client);

    // A miss that succeeds, then a hit that is answered 401, then the token
    // that replaces it.
    for status in [200, 401, 200] {
        let future = send(&mut client, get(URL));
        page.show(&future);
        let call = tokio::spawn(future);
        let (request, reply) = next(&mut server).await;
        page.show(&request);
        page.show(request.headers());
        reply.send_response(answer(status));
        let response = call.await.unwrap().unwrap();
        page.show(&response);
        if let Some(rejected) = response.extensions().get::<TokenRejected>() {
            page.show(rejected);
            let mut retry = RetryUnauthorized::new();
            let mut result = Ok::<Response, BoxError>(response);
            let _future = Policy::retry(&mut retry, &mut get(URL), &mut result);
            page.show(&retry);
        }
        page.show(cache);
        page.show(&*statuses.borrow_and_update());
        settle().await;
    }
    assert_eq!(cache.status().generation, 2);

    // Refreshes that fail in several ways while the old token serves.
    for step in [
        Step::Fail(ErrorKind::Transport),
        Step::Hang,
        Step::Token(format!("{SECRET} not a token").into(), s(60)),
        Step::Token(format!("{SECRET}-3").into(), Duration::ZERO),
        Step::Error(Error::new(ErrorKind::Store, "outer").with_source(io::Error::other("inner"))),
        Step::Panic,
    ] {
        provider.push(step);
        if let Err(error) = cache.refresh().await {
            page.show_error(&error.into());
        }
        page.show(&cache.status());
        tokio::time::sleep(s(120)).await;
    }

    // The token dead, requests fail for want of another; one is refused.
    tokio::time::sleep(s(7200)).await;
    provider.push(Step::Fail(ErrorKind::InvalidClient));
    for uri in [URL, URL, "https://evil.example/"] {
        let error = send(&mut client, get(uri)).await.unwrap_err();
        page.show_error(&error);
    }
    page.show(&serde_json::to_string(&cache.status()).unwrap());

    let shown = page.0 + &logs.text();
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!shown.contains("Bearer"), "{shown}");
    // It did look: the header was there, and so were the logs.
    assert!(shown.contains("Sensitive"));
    let logs = logs.text();
    for event in [
        "officernd_auth.refresh",
        "token refreshed",
        "refresh failed",
    ] {
        assert!(logs.contains(event), "no {event} in {logs}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_values_that_hold_a_token_do_not_show_it() {
    let mut page = Page::default();
    let life = s(60);
    let secret = Secret::from(SECRET);
    page.show(&secret);
    let token = AccessToken::bearer(secret, life).unwrap();
    page.show(&token);
    page.show(token.header_value());
    page.show(&StaticToken::new(SECRET).unwrap());
    page.show(&FetchContext::default());
    page.show(&ScriptedProvider::new().then(Step::Token(SECRET.into(), life)));
    page.show(&OfficeRndAuthLayer::builder(
        StaticToken::new(SECRET).unwrap(),
    ));
    for bad in [format!("{SECRET} "), format!("{SECRET}\r\nx: y")] {
        page.show_error(&AccessToken::bearer(bad.clone(), life).unwrap_err().into());
        page.show_error(&StaticToken::new(bad).unwrap_err().into());
    }
    let acme = OfficeRndAuthLayer::new(StaticToken::new(SECRET).unwrap());
    let organizations = OrganizationsLayer::new(HashMap::from([("acme".to_owned(), acme)]));
    page.show(&organizations.layer(()));
    let zero = AccessToken::bearer(SECRET, Duration::ZERO);
    page.show_error(&zero.unwrap_err().into());

    let shown = page.0;
    assert!(!shown.contains(SECRET), "{shown}");
}
