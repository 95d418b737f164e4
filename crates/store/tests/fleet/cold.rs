//! Many pods that start, refresh and fail at the same time.

use std::time::Duration;

use officernd_auth::{ErrorKind, TokenCache};
use officernd_auth_store::{FileStore, RedisStore};
use officernd_simulator::{Fault, Simulator};

use crate::pods::{MINUTE, cache, call_all, pod, provider};
use testkit::redis::{Server, scratch};

#[tokio::test]
async fn fifty_cold_pods_cost_one_token_request_and_redis_sees_no_secret() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(300));
    let pods: Vec<TokenCache> = (0..50).map(|_| pod(&officernd, &server.url()).1).collect();
    let longest = call_all(&pods).await;
    println!("50 caches cold, Redis: longest wait {longest:?}");
    assert_eq!(officernd.token_requests(), 1);

    // Neither keys nor values show the token or the secret.
    let token = pods[0].token().await.unwrap();
    let token = token.header_value().to_str().unwrap()[7..].to_owned();
    server.ask_text(&["SAVE"]);
    let mut dump = std::fs::read(server.dir.join("dump.rdb")).unwrap();
    for key in server.keys() {
        dump.extend(key.as_bytes());
        dump.extend(server.ask(&[b"GET", key.as_bytes()]));
    }
    assert!(server.keys().iter().any(|key| key.ends_with(":entry")));
    for secret in [token, officernd.client_secret(), officernd.client_id()] {
        let found = dump
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found);
    }
}

#[tokio::test]
async fn fifty_cold_pods_cost_one_token_request_over_files() {
    let dir = scratch();
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(300));
    let pods: Vec<TokenCache> = (0..50)
        .map(|_| cache(&provider(&officernd, FileStore::new(&dir).unwrap())))
        .collect();
    let longest = call_all(&pods).await;
    println!("50 caches cold, files: longest wait {longest:?}");
    assert_eq!(officernd.token_requests(), 1);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_refresh_and_a_rejected_token_cost_twenty_pods_one_request_each() {
    let server = Server::start();
    let officernd = Simulator::builder()
        .token_life(Duration::from_secs(3))
        .start()
        .await
        .unwrap();
    let pods: Vec<TokenCache> = (0..20).map(|_| pod(&officernd, &server.url()).1).collect();
    call_all(&pods).await;
    assert_eq!(officernd.token_requests(), 1);
    // After half of the lifetime each pod starts a refresh in the background.
    officernd.set_token_life(MINUTE);
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        call_all(&pods).await;
    }
    assert_eq!(officernd.token_requests(), 2);
    assert!(pods.iter().all(|pod| pod.status().generation == 2));

    // A token younger than a quarter of its life is not replaced because of a 401.
    tokio::time::sleep(Duration::from_secs(16)).await;
    for pod in &pods {
        assert!(pod.reject(&pod.token().await.unwrap()));
    }
    for pod in &pods {
        while pod.status().generation < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(officernd.token_requests(), 3);
    // All pods request a new token at once, and share one.
    let calls = pods.iter().map(|pod| {
        let pod = pod.clone();
        tokio::spawn(async move { pod.refresh().await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(officernd.token_requests(), 4);
}

#[tokio::test]
async fn pods_in_a_crash_loop_keep_to_five_requests_a_minute() {
    let server = Server::start();
    let officernd = Simulator::builder().no_rate_limit().start().await.unwrap();
    officernd.token_faults().always(Fault::Status(500));
    let mut kinds = Vec::new();
    for round in 0..10 {
        // A crash loop: new pods each time, which have no backoff and no rate limit yet.
        let pods: Vec<TokenCache> = (0..8).map(|_| pod(&officernd, &server.url()).1).collect();
        let calls = pods.iter().map(|pod| {
            let pod = pod.clone();
            tokio::spawn(async move { pod.token().await })
        });
        for call in calls.collect::<Vec<_>>() {
            kinds.push(call.await.unwrap().unwrap_err().kind());
        }
        if round == 0 {
            // One pod retries the first failure once, for all.
            assert!(officernd.token_requests() <= 2, "eight failed in turn");
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    assert!(
        officernd.token_requests() <= 5,
        "{}",
        officernd.token_requests()
    );
    assert!(kinds.contains(&ErrorKind::Transport));
}

#[tokio::test]
async fn ten_tenants_behind_one_address_share_five_requests_a_minute() {
    let server = Server::start();
    let officernd = Simulator::builder().no_rate_limit().start().await.unwrap();
    let tenants = (0..10).map(|tenant| {
        let store = RedisStore::new(&server.url()).unwrap();
        let credentials =
            crate::pods::credentials(&officernd).form_param("tenant", tenant.to_string());
        let http = officernd_auth::HttpTokenProvider::new(credentials).unwrap();
        let cache = cache(&officernd_auth_store::SharedTokenProvider::new(http, store));
        tokio::spawn(async move { cache.token().await })
    });
    let (mut served, mut refused) = (0, 0);
    for tenant in tenants.collect::<Vec<_>>() {
        match tenant.await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::RateLimited);
                assert!(error.retry_after().unwrap() > Duration::from_secs(30));
                refused += 1;
            }
        }
    }
    assert_eq!((served, refused), (5, 5));
    assert_eq!(officernd.token_requests(), 5);
}
