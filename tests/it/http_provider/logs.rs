//! Traces, and the text of `Debug`.

use std::io;
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// All that this thread traces from now on, as long as the guards live.
    fn start(&self) -> (tracing::Dispatch, DefaultGuard) {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        // While tracing knows of one subscriber only, a callsite that another
        // test's thread meets first is off for good.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        (second, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
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

#[tokio::test]
async fn a_narrower_scope_is_kept_and_warned_of_once() {
    let log = Log::default();
    let _guards = log.start();
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
    let log = Log::default();
    let _guards = log.start();
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

/// Resolves no name.
struct NoNames;

impl reqwest::dns::Resolve for NoNames {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async { Err("no such host".into()) })
    }
}

#[tokio::test]
async fn events_say_what_kept_a_connection_from_being_made() {
    // Bound, so that no other test gets the port, and not listening.
    let nowhere = tokio::net::TcpSocket::new_v4().unwrap();
    nowhere.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let refused = format!("https://{}/token", nowhere.local_addr().unwrap());

    let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(ca.signing_key.serialize_der().into());
    let config = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![ca.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unknown_ca = format!("https://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });

    for (url, cause) in [
        ("https://nowhere.test/token", "no such host"),
        (&refused, "refused"),
        (&unknown_ca, "certificate"),
    ] {
        let log = Log::default();
        let _guards = log.start();
        let credentials = ClientCredentials::new("id", "hunter2").token_url(url);
        let client = reqwest::Client::builder().dns_resolver(Arc::new(NoNames));
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
