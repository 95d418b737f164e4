//! Sentinel: the documented rights, TLS everywhere, members that hang, refuse
//! or are gone, and a failover under load.

use std::net::TcpListener;
use std::time::Duration;

use officernd_auth_store::testing::check_store;
use officernd_auth_store::{RedisStore, TokenStore};
use officernd_simulator::Simulator;

use crate::pods::{ask_all, cache, look, provider};
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

/// A member that accepts connections and says nothing.
fn hung() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn one_sentinel_that_works_is_enough_wherever_it_stands() {
    let master = Server::start();
    let sentinel = master.sentinel("");
    let (_listener, hung) = hung();
    let refusing = "redis://127.0.0.1:1".to_owned();
    // An address that answers nothing at all, and a sentinel of another group.
    let dead = "redis://192.0.2.1:26379".to_owned();
    let members = [hung, refusing, dead, sentinel.url()];
    for first in 0..members.len() {
        let mut members = members.clone();
        members.rotate_left(first);
        let members = members.iter().map(|member| &**member);
        let store = RedisStore::sentinel(members, "redis://mymaster").unwrap();
        store.claim(&look(b"")).await.unwrap();
    }
}

#[tokio::test]
async fn a_failover_under_load_fails_no_request() {
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

    // Processes that are cut off fetch by themselves: failures are counted.
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
    ask_all(&pods).await;
    master.kill();
    let look = look(b"");
    for _ in 0..300 {
        ask_all(&pods).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let claimed = tokio::time::timeout(Duration::from_millis(500), store.claim(&look)).await;
        if claimed.is_ok_and(|claimed| claimed.is_ok()) {
            // The replica is the master now, and a new pod finds the token.
            let late = cache(&provider(&officernd, store));
            late.token().await.unwrap();
            return;
        }
    }
    panic!("no master after 30 s");
}
