//! Credentials that change, and credentials of several organizations, in one Redis.

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use officernd_auth::credentials::AppCredentials;
use officernd_auth::{ClientCredentials, ErrorKind, HttpTokenProvider, TokenCache};
use officernd_auth_store::{RedisStore, SharedTokenProvider};
use officernd_simulator::Simulator;
use testkit::redis::Server;
use tokio::time::sleep;

use crate::pods::{cache, now};

/// A client id and its secret.
type Pair = (&'static str, &'static str);

/// A pod whose pair can be replaced.
fn pod(officernd: &Simulator, server: &Server, pair: &Arc<Mutex<Pair>>) -> TokenCache {
    let pair = Arc::clone(pair);
    let credentials = ClientCredentials::from_source(move || {
        let (id, secret) = *pair.lock().unwrap();
        ready(Ok(AppCredentials::new(id, secret)))
    });
    let credentials = credentials
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let http = HttpTokenProvider::new(credentials).unwrap();
    let store = RedisStore::new(&server.url()).unwrap();
    cache(&SharedTokenProvider::new(http, store))
}

fn pair_of(app: Pair) -> Arc<Mutex<Pair>> {
    Arc::new(Mutex::new(app))
}

async fn header(pod: &TokenCache) -> String {
    let token = pod.token().await.unwrap();
    token.header_value().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_corrected_secret_heals_within_5_s_and_a_wrong_one_is_sent_once() {
    let (server, officernd) = (Server::start(), Simulator::start().await.unwrap());
    officernd.add_app("app", "right");
    let pairs = [(); 3].map(|()| pair_of(("app", "wrong")));
    let pods = pairs.each_ref().map(|pair| pod(&officernd, &server, pair));
    for pod in &pods {
        let error = pod.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidClient);
        assert!(error.retry_after().unwrap() <= Duration::from_secs(5));
        let pod = pod.clone();
        tokio::spawn(async move {
            loop {
                let _ = pod.token().await;
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    sleep(Duration::from_secs(8)).await;
    assert_eq!(officernd.token_requests(), 1);
    let corrected_at = now();
    for pair in &pairs {
        *pair.lock().unwrap() = ("app", "right");
    }
    for pod in &pods {
        while pod.try_token().is_none() {
            let waited = now() - corrected_at;
            assert!(waited < Duration::from_millis(5_500), "{waited:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(officernd.token_requests(), 2);
}

#[tokio::test]
async fn two_organizations_share_nothing_but_the_window() {
    // OfficeRnD counts by address: the pods have one.
    let (server, officernd) = (Server::start(), Simulator::start().await.unwrap());
    let apps = [("acme", "acme-secret"), ("globex", "globex-secret")];
    for (id, secret) in apps {
        officernd.add_app(id, secret);
    }
    let [acme, globex] = apps.map(|app| [(); 3].map(|()| pod(&officernd, &server, &pair_of(app))));
    let mut headers = Vec::new();
    for pods in [&acme, &globex] {
        for pod in pods {
            headers.push(header(pod).await);
        }
    }
    assert_eq!(officernd.token_requests(), 2);
    assert!(
        headers[..3].iter().all(|it| *it == headers[0]),
        "{headers:?}"
    );
    assert!(
        headers[3..].iter().all(|it| *it == headers[3]),
        "{headers:?}"
    );
    assert_ne!(headers[0], headers[3]);

    // A failure of one is none of the other.
    let wrong = pod(&officernd, &server, &pair_of(("acme", "wrong")));
    assert_eq!(
        wrong.token().await.unwrap_err().kind(),
        ErrorKind::InvalidClient
    );
    assert_eq!(header(&globex[0]).await, headers[3]);
    assert_eq!(officernd.token_requests(), 3);

    // An entry of one under the name of the other is ignored.
    let entries = || {
        let keys = server.keys().into_iter();
        keys.filter(|key| key.ends_with(":entry"))
            .collect::<Vec<_>>()
    };
    // The third one is the failure.
    assert_eq!(entries().len(), 3);
    let windows = server.keys();
    let windows = windows.iter().filter(|key| key.ends_with(":window"));
    assert_eq!(windows.count(), 1);
    let contents = entries()
        .iter()
        .map(|key| get(&server, key))
        .collect::<Vec<_>>();
    for (key, other) in entries().iter().zip(contents.iter().cycle().skip(1)) {
        server.ask(&[b"SET", key.as_bytes(), other, b"PX", b"600000"]);
    }
    let late = pod(&officernd, &server, &pair_of(apps[0]));
    let token = header(&late).await;
    assert!(!headers.contains(&token), "{token}");
    assert_eq!(officernd.token_requests(), 4);

    // The window is one: of two more requests, one is sent.
    globex[0].refresh().await.unwrap();
    let error = late.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(officernd.token_requests(), 5);
}

/// The value of a key, without the length in front and the line end behind.
fn get(server: &Server, key: &str) -> Vec<u8> {
    let reply = server.ask(&[b"GET", key.as_bytes()]);
    let start = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let length = std::str::from_utf8(&reply[1..start - 2]).unwrap();
    let length: usize = length.parse().unwrap();
    reply[start..start + length].to_vec()
}

#[tokio::test]
async fn a_rolling_rotation_costs_one_token_request_a_pair() {
    let (server, officernd) = (Server::start(), Simulator::start().await.unwrap());
    let (old, new) = (("old", "old-secret"), ("new", "new-secret"));
    for (id, secret) in [old, new] {
        officernd.add_app(id, secret);
    }
    let start = |pair| pod(&officernd, &server, &pair_of(pair));
    let mut pods: Vec<TokenCache> = (0..6).map(|_| start(old)).collect();
    let mut old_header = String::new();
    for pod in &pods {
        old_header = header(pod).await;
    }
    // One pod after the other is replaced, and one of each kind restarts beside them.
    for pod in &mut pods {
        *pod = start(new);
        let headers = [header(pod).await, header(&start(old)).await];
        assert_ne!(headers[0], headers[1]);
        assert_eq!(headers[1], old_header);
    }
    assert_eq!(officernd.token_requests(), 2);
    officernd.delete_app("old");
    let first = header(&pods[0]).await;
    for pod in &pods {
        assert_eq!(header(pod).await, first);
    }
    assert_eq!(officernd.token_requests(), 2);
}
