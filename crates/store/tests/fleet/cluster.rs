//! A cluster: the documented rights, and a slot that moves.

use std::time::Duration;

use officernd_auth_store::testing::check_store;
use officernd_auth_store::{Claimed, RedisStore, TokenStore};

use crate::pods::{claim, finish, look};
use crate::stores::{README, args, rights};
use testkit::redis::{Server, eventually};

/// The rights that README adds for a cluster.
const ON_A_CLUSTER: &str = "+cluster|slots +asking";

/// Starts two nodes, of which the first has all slots.
fn cluster() -> [Server; 2] {
    let rights = rights(ON_A_CLUSTER);
    let nodes = [Server::node(&args(&rights)), Server::node(&args(&rights))];
    nodes[0].ask_text(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let other = nodes[1].port.to_string();
    nodes[0].ask_text(&["CLUSTER", "MEET", "127.0.0.1", &other]);
    for node in &nodes {
        eventually("the cluster is up", || {
            let info = node.ask_text(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    nodes
}

fn url(node: &Server) -> String {
    format!("redis://app:hunter2@127.0.0.1:{}", node.port)
}

#[tokio::test]
async fn a_cluster_keeps_the_rules_with_the_documented_rights() {
    assert!(README.contains(ON_A_CLUSTER));
    let nodes = cluster();
    let store = RedisStore::cluster([&*url(&nodes[0]), &*url(&nodes[1])]).unwrap();
    check_store(&store).await.unwrap();
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_with_the_documented_rights() {
    let nodes = cluster();
    let id = |node: &Server| {
        let answer = node.ask_text(&["CLUSTER", "MYID"]);
        answer.lines().nth(1).unwrap().to_owned()
    };
    let ids = [id(&nodes[0]), id(&nodes[1])];
    let store = RedisStore::cluster([&*url(&nodes[0])]).unwrap();
    // Makes all three keys: an entry, a lease and a window.
    let first = claim(b"x");
    assert_eq!(store.claim(&first).await.unwrap(), Claimed::Granted);
    let end = finish(&first).entry(b"sealed".to_vec(), Duration::from_secs(60));
    assert!(store.finish(&end).await.unwrap());
    let mut second = claim(b"x");
    second.seen = Some(first.holder);
    assert_eq!(store.claim(&second).await.unwrap(), Claimed::Granted);

    let tag = format!("{{{}}}", second.window);
    let slot = nodes[0].ask_text(&["CLUSTER", "KEYSLOT", &tag]);
    let slot = slot.trim_matches(|c: char| !c.is_ascii_digit());
    let slot = slot.split('\r').next().unwrap();
    nodes[1].ask_text(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &ids[0]]);
    nodes[0].ask_text(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &ids[1]]);
    let to = nodes[1].port.to_string();
    let keys = nodes[0].keys();
    assert_eq!(keys.len(), 3);
    for key in keys {
        let moved = nodes[0].ask_text(&["MIGRATE", "127.0.0.1", &to, &key, "0", "5000"]);
        assert!(moved.starts_with("+OK"), "{moved}");
    }
    // The first node replies `ASK`.
    let is_there = async || {
        let claimed = store.claim(&look(b"x")).await.unwrap();
        assert!(matches!(claimed, Claimed::Entry(entry) if entry.sealed == b"sealed"));
    };
    is_there().await;
    for node in [&nodes[1], &nodes[0]] {
        node.ask_text(&["CLUSTER", "SETSLOT", slot, "NODE", &ids[1]]);
    }
    is_there().await;
}
