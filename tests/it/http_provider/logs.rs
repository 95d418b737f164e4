//! Traces, and the text of `Debug`.

use std::sync::mpsc;

use officernd_auth::provider::KeyedProvider as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::*;
use crate::raw::{closed_port, tls_server};
use crate::support::{at_once, set_subscriber};

#[tokio::test]
async fn a_narrower_scope_is_kept_and_warned_of_once() {
    let (log, _guard) = Log::start(LevelFilter::TRACE, FmtSpan::NONE);
    let (provider, _) = over(credentials(), |_| {
        answer(200, r#"{"access_token":"minted","scope":"a"}"#)
    });
    for provider in [&provider, &provider.clone()] {
        let token = provider.fetch(FetchContext::default()).await.unwrap();
        assert_eq!(token.scope(), Some("a"));
    }
    let warned = log.text().matches("granted fewer").count();
    assert_eq!(warned, 1, "{}", log.text());
}

#[tokio::test]
async fn no_secret_is_shown_or_traced() {
    let (log, _guard) = Log::start(LevelFilter::TRACE, FmtSpan::NONE);
    let path = scratch("http_provider_leaks", "hunter2");
    let credentials = ClientCredentials::new("the-id", "hunter2")
        .scope("a b")
        .token_url("https://leaks.test/oauth?key=hunter2")
        .form_param("password", "hunter2")
        .secret_from_file(&path);
    let mut shown_all = format!("{credentials:?} {credentials:#?}");
    let (provider, _) = over(credentials, |nth| match nth {
        0 => token(),
        1 => answer(400, r#"{"error":"hunter2","error_description":"hunter2"}"#),
        2 => answer(
            401,
            r#"{"error":"invalid_client","error_description":"hunter2"}"#,
        ),
        _ => answer(200, "hunter2"),
    });
    shown_all += &format!("{provider:?} {provider:#?}");
    minted(&provider).await;
    for _ in 0..2 {
        shown_all += &shown(&refused(&provider).await);
    }
    fs::write(&path, "hunter2\0").unwrap();
    shown_all += &shown(&refused(&provider).await);
    let log = log.text();
    assert!(log.contains("the last ones are used"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(!shown_all.contains("hunter2"), "{shown_all}");
    assert!(shown_all.contains("the-id") && shown_all.contains("https://leaks.test"));
}

/// Resolves `localhost` only.
struct OneName;

impl reqwest::dns::Resolve for OneName {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let here: reqwest::dns::Addrs = Box::new(std::iter::once(([127, 0, 0, 1], 0).into()));
            if name.as_str() == "localhost" {
                Ok(here)
            } else {
                Err("no such host".into())
            }
        })
    }
}

#[tokio::test]
async fn events_say_what_kept_a_connection_from_being_made() {
    let (_socket, address) = closed_port();
    let refused = format!("https://{address}/token");
    let (port, ..) = tls_server(Vec::new()).await;
    let unknown_ca = format!("https://localhost:{port}/token");
    for (url, cause) in [
        ("https://nowhere.test/token", "no such host"),
        (&refused, "refused"),
        (&unknown_ca, "certificate"),
    ] {
        let (log, _guard) = Log::start(LevelFilter::TRACE, FmtSpan::NONE);
        let credentials = ClientCredentials::new("id", "hunter2").token_url(url);
        let client = reqwest::Client::builder().dns_resolver(Arc::new(OneName));
        let client = client.build().unwrap();
        let provider = HttpTokenProvider::with_reqwest(credentials, client).unwrap();
        let layer = officernd_auth::OfficeRndAuthLayer::new(provider);
        layer.cache().token().await.unwrap_err();
        let log = log.text();
        let mut events = log
            .lines()
            .filter(|line| line.contains("token refresh failed"));
        let event = events.next().unwrap_or_else(|| panic!("{log}"));
        assert!(event.to_lowercase().contains(cause), "{cause}: {event}");
        assert!(!event.contains(url), "{event}");
    }
}

/// Reads the credentials at each event.
struct Reads(HttpTokenProvider, mpsc::Sender<Option<ErrorKind>>);

impl<S: tracing::Subscriber> Layer<S> for Reads {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        let material = at_once(self.0.key_material());
        let error = material.and_then(Result::err);
        self.1.send(error.map(|error| error.kind())).unwrap();
    }
}

#[test]
fn a_subscriber_may_read_the_credentials() {
    let (read, is_read) = mpsc::channel();
    // In a thread, which a lock would stop for good.
    std::thread::spawn(move || {
        let unreadable = || std::future::ready(Err("the keyring is locked".into()));
        let credentials = ClientCredentials::from_source(unreadable).scope("a");
        let (provider, _) = over(credentials, |_| token());
        let subscriber = tracing_subscriber::registry().with(Reads(provider.clone(), read));
        let _guard = set_subscriber(subscriber);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.build().unwrap().block_on(refused(&provider));
    });
    let error = is_read.recv_timeout(s(10));
    assert_eq!(error, Ok(Some(ErrorKind::Transport)));
}
