//! A cluster: the documented rights, and a seed that hangs.

use std::net::TcpListener;
use std::time::Duration;

use officernd_auth::fleet::{RedisStore, TokenStore};
use officernd_auth::testing::{Simulator, check_store};

use crate::pods::{ask_all, cache, look, provider};
use crate::server::{Server, eventually};
use crate::stores::{args, rights};

/// What the documentation adds for a cluster.
const ON_A_CLUSTER: &str = "+cluster|slots +asking";

/// Two nodes, the first of which has all slots.
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
    let docs = include_str!("../../src/fleet/redis/mod.rs").replace("\n/// ", " ");
    assert!(docs.contains(ON_A_CLUSTER));
    let nodes = cluster();
    let store = RedisStore::cluster([&*url(&nodes[0]), &*url(&nodes[1])]).unwrap();
    check_store(&store).await.unwrap();

    // And wakes those that wait.
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(300));
    let pods: Vec<_> = (0..20)
        .map(|_| {
            let store = RedisStore::cluster([&*url(&nodes[0])]).unwrap();
            cache(&provider(&officernd, store))
        })
        .collect();
    let longest = ask_all(&pods).await;
    println!("20 caches cold, cluster: longest wait {longest:?}");
    assert_eq!(officernd.token_requests(), 1);
}

#[tokio::test]
async fn one_seed_that_works_is_enough() {
    let nodes = cluster();
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = format!("redis://{}", hung.local_addr().unwrap());
    for others in [
        [&*hung, "redis://127.0.0.1:1"],
        ["redis://127.0.0.1:1", &*hung],
    ] {
        let seeds = [others[0], others[1], &*url(&nodes[0])];
        let store = RedisStore::cluster(seeds).unwrap();
        store.claim(&look(b"")).await.unwrap();
    }
}
