//! Sentinel: the documented rights, TLS, and a failover under load.

use std::time::Duration;

use officernd_auth_store::testing::check_store;
use officernd_auth_store::{RedisStore, TokenStore};
use officernd_simulator::Simulator;

use crate::pods::{cache, call_all, look, provider};
use crate::stores::{README, args, rights};
use testkit::redis::{Server, eventually};

#[tokio::test]
async fn sentinels_lead_to_the_master_with_the_documented_rights() {
    let master = Server::with(&args(&rights("")));
    let user = "asker on >hunter2 -@all +sentinel|get-master-addr-by-name";
    assert!(README.contains(&format!("ACL SETUSER {user}\n")));
    let sentinel = master.sentinel(&format!("user {user}"));
    let url = format!("redis://asker:hunter2@127.0.0.1:{}", sentinel.port);
    let store = RedisStore::sentinel([&*url], "redis://app:hunter2@mymaster/2").unwrap();
    check_store(&store).await.unwrap();
}

#[tokio::test]
async fn servers_and_sentinels_over_tls_with_private_roots() {
    let (master, pem) = Server::with_tls(&[]);
    let sentinel = master.sentinel("");
    let url = format!("rediss://localhost:{}", sentinel.port);
    let store = RedisStore::sentinel([&*url], "rediss://mymaster").unwrap();
    assert!(store.claim(&look(b"")).await.is_err());
    let store = store.root_certificates(pem).unwrap();
    check_store(&store).await.unwrap();
}

#[tokio::test]
async fn requests_succeed_during_a_failover() {
    let mut master = Server::start();
    let port = master.port.to_string();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("the replica has connected", || {
        let info = replica.ask_text(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    });
    let sentinel = master.sentinel("");
    eventually("the sentinel knows the replica", || {
        let masters = sentinel.ask_text(&["SENTINEL", "REPLICAS", "mymaster"]);
        masters.contains(&replica.port.to_string())
    });

    // Without the store each pod fetches its own tokens, so this test counts only failures.
    let officernd = Simulator::builder()
        .token_life(Duration::from_secs(4))
        .no_rate_limit()
        .start()
        .await
        .unwrap();
    let store = RedisStore::sentinel([&*sentinel.url()], "redis://mymaster").unwrap();
    let pods: Vec<_> = (0..5)
        .map(|_| {
            let layer =
                officernd_auth::OfficeRndAuthLayer::builder(provider(&officernd, store.clone()))
                    .rate_limit(officernd_auth::RateLimit::unlimited());
            layer.build().unwrap().cache().clone()
        })
        .collect();
    call_all(&pods).await;
    master.kill();
    let look = look(b"");
    for _ in 0..300 {
        call_all(&pods).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let claimed = tokio::time::timeout(Duration::from_millis(500), store.claim(&look)).await;
        if claimed.is_ok_and(|claimed| claimed.is_ok()) {
            // The replica is the master now, and has the token.
            let late = cache(&provider(&officernd, store));
            late.token().await.unwrap();
            return;
        }
    }
    panic!("no master after 30 s");
}
