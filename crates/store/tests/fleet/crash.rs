//! Processes that are killed or stopped while they fetch or write.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use officernd_auth::{ClientCredentials, HttpTokenProvider};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::{Claimed, FileStore, RedisStore, TokenStore};
use officernd_simulator::{Fault, Simulator};

use crate::pods::{MINUTE, cache, call_all, claim, finish, look, now, pod};
use testkit::redis::{Server, eventually, kill, scratch};

const STORE: &str = "FLEET_TEST_STORE";
const TOKEN_URL: &str = "FLEET_TEST_TOKEN_URL";
const CLIENT: &str = "FLEET_TEST_CLIENT";

/// Starts this binary as another process that runs one test.
fn child(test: &str, variables: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test: a process that fetches a token.
#[tokio::test]
async fn lead() {
    let read = |name| std::env::var(name).unwrap();
    let Ok(client) = std::env::var(CLIENT) else {
        return;
    };
    let (id, secret) = client.split_once(' ').unwrap();
    let credentials = ClientCredentials::new(id, secret)
        .scope("officernd.api.read officernd.api.write")
        .token_url(read(TOKEN_URL));
    let http = HttpTokenProvider::new(credentials).unwrap();
    let store = RedisStore::new(&read(STORE)).unwrap();
    let _ = cache(&SharedTokenProvider::new(http, store)).token().await;
}

/// Starts a process that fetches a token.
fn leader(server: &Server, officernd: &Simulator) -> Child {
    let client = format!("{} {}", officernd.client_id(), officernd.client_secret());
    let variables = [
        (STORE, &*server.url()),
        (TOKEN_URL, &*officernd.token_url()),
        (CLIENT, &*client),
    ];
    child("crash::lead", &variables)
}

#[tokio::test]
async fn another_process_takes_over_when_the_lease_of_a_killed_one_ends() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    officernd.token_faults().next(1, Fault::Hang);
    let mut leader = leader(&server, &officernd);
    officernd.token_requests_reach(1).await;
    kill("-KILL", leader.id());
    let killed = now();
    leader.wait().unwrap();

    let pods: Vec<_> = (0..5).map(|_| pod(&officernd, &server.url()).1).collect();
    let longest = call_all(&pods).await;
    println!("leader killed: longest wait {longest:?}");
    // The lease is the fetch timeout of 2 s, plus 5 s.
    assert!((now() - killed) < Duration::from_secs(9));
    assert_eq!(officernd.token_requests(), 2);
    assert!(officernd.max_token_requests_in(MINUTE) <= 5);
}

#[tokio::test]
async fn a_process_stopped_past_its_lease_does_not_overwrite_a_newer_token() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(500));
    let mut leader = leader(&server, &officernd);
    officernd.token_requests_reach(1).await;
    kill("-STOP", leader.id());
    let pods: Vec<_> = (0..5).map(|_| pod(&officernd, &server.url()).1).collect();
    call_all(&pods).await;
    assert_eq!(officernd.token_requests(), 2);
    kill("-CONT", leader.id());
    eventually("the leader has its late token", || {
        leader.try_wait().unwrap().is_some()
    });
    let late = pod(&officernd, &server.url()).1.token().await.unwrap();
    let theirs = pods[0].token().await.unwrap();
    assert_eq!(late.header_value(), theirs.header_value());
    assert_eq!(officernd.token_requests(), 2);
}

/// Not a test: a process that writes to a `FileStore` until it is killed.
#[tokio::test]
async fn write() {
    let Ok(dir) = std::env::var(STORE) else {
        return;
    };
    let store = FileStore::new(dir).unwrap();
    for write in 0u64.. {
        let mut claim = claim(b"shared");
        claim.seen = match store.claim(&look(b"shared")).await.unwrap() {
            Claimed::Entry(entry) => Some(entry.id),
            _ => None,
        };
        store.claim(&claim).await.unwrap();
        let entry = vec![write.to_le_bytes()[0]; 20_000];
        let finish = finish(&claim).entry(entry, MINUTE);
        assert!(store.finish(&finish).await.unwrap());
        if write == 0 {
            println!("writing");
        }
    }
}

#[tokio::test]
async fn a_writer_killed_at_any_instant_leaves_a_complete_file() {
    let dir = scratch();
    let store = FileStore::new(&dir).unwrap();
    for round in 0..20u64 {
        let mut writer = child("crash::write", &[(STORE, dir.to_str().unwrap())]);
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if line.contains("writing") {
                break;
            }
        }
        tokio::time::sleep(Duration::from_micros(3_000 + 1_370 * round)).await;
        kill("-KILL", writer.id());
        writer.wait().unwrap();
        // The system has released the lock, and the file is complete.
        let Claimed::Entry(entry) = store.claim(&look(b"shared")).await.unwrap() else {
            panic!("the entry is gone");
        };
        assert_eq!(entry.sealed, vec![entry.sealed[0]; 20_000]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::remove_dir_all(dir).unwrap_or_default();
}
