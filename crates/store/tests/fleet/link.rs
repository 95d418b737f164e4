//! Connections to Redis: time limits, servers that hang, and the cryptography of TLS.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use officernd_auth_store::{RedisStore, TokenStore};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use socket2::{Domain, Socket, Type};

use crate::pods::{hung, look, now, slow};
use testkit::redis::{Server, eventually};

/// Returns whether the store answers an operation, and checks that it ends in time.
async fn answers(store: &RedisStore, scene: &str, table: &mut String) -> bool {
    let start = now();
    let answered = store.claim(&look(b"")).await.is_ok();
    let took = now() - start;
    let result = if answered { "answered" } else { "failed" };
    *table += &format!("{scene}: {took:.2?}, {result}\n");
    // The limit is 3 s. A busy machine gets 3 s more.
    assert!(took < Duration::from_secs(6), "{table}");
    answered
}

#[tokio::test]
async fn a_stopped_server_costs_three_seconds_at_most() {
    let mut table = String::new();
    let server = Server::with(&["--user", "app", "on", ">hunter2", "~*", "+@all"]);
    let with_password = format!("redis://app:hunter2@127.0.0.1:{}", server.port);
    let warm = RedisStore::new(&server.url()).unwrap();
    let warm_with_password = RedisStore::new(&with_password).unwrap();
    assert!(answers(&warm, "running", &mut table).await);
    assert!(answers(&warm_with_password, "running, with a password", &mut table).await);
    server.stop();
    let cold = |url: &str| RedisStore::new(url).unwrap();
    for (scene, store) in [
        ("stopped, warm", warm.clone()),
        ("stopped, cold", cold(&server.url())),
        ("stopped, warm, with a password", warm_with_password),
        ("stopped, cold, with a password", cold(&with_password)),
    ] {
        assert!(!answers(&store, scene, &mut table).await);
    }
    server.resume();
    assert!(answers(&warm, "continued", &mut table).await);
    assert!(!answers(&cold("redis://127.0.0.1:1"), "refused", &mut table).await);
    println!("{table}");
}

#[tokio::test]
async fn a_server_that_drops_syns_costs_three_seconds_at_most() {
    let mut table = String::new();
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    full.bind(&any.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(300);
    let connected: Vec<_> = (0..64)
        .map_while(|_| TcpStream::connect_timeout(&address, patience).ok())
        .collect();
    assert!(connected.len() < 64, "its backlog is not full");
    let store = RedisStore::new(&format!("redis://{address}")).unwrap();
    assert!(!answers(&store, "SYN dropped", &mut table).await);
    println!("{table}");
}

#[tokio::test]
async fn one_sentinel_or_cluster_node_that_works_is_enough() {
    let mut table = String::new();
    let master = Server::start();
    let sentinel = master.sentinel("");
    let working = sentinel.url();
    let ((_one, one), (_two, two)) = (hung(), hung());
    let refusing = "redis://127.0.0.1:1";
    // This address never replies, not even with a refusal.
    let unreachable = "redis://192.0.2.1:26379";
    let mut members = [&*one, refusing, unreachable, &*working];
    for _ in 0..members.len() {
        members.rotate_left(1);
        let scene = format!("Sentinel, {}", members.join(" "));
        let store = RedisStore::sentinel(members, "redis://mymaster").unwrap();
        assert!(answers(&store, &scene, &mut table).await, "{table}");
    }
    let store = RedisStore::sentinel([&*one, &*two], "redis://mymaster").unwrap();
    assert!(!answers(&store, "Sentinel, all hung", &mut table).await);

    let node = Server::node(&[]);
    node.ask_text(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually("the cluster is up", || {
        let info = node.ask_text(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok")
    });
    let working = node.url();
    let warm = RedisStore::cluster([&*working]).unwrap();
    assert!(answers(&warm, "cluster", &mut table).await);
    for seeds in [[&*one, refusing, &*working], [refusing, &*one, &*working]] {
        let store = RedisStore::cluster(seeds).unwrap();
        let scene = "cluster, the third seed works";
        assert!(answers(&store, scene, &mut table).await, "{table}");
    }
    node.stop();
    assert!(!answers(&warm, "cluster, stopped, warm", &mut table).await);
    let cold = RedisStore::cluster([&*working]).unwrap();
    assert!(!answers(&cold, "cluster, stopped, cold", &mut table).await);
    println!("{table}");
}

#[tokio::test]
async fn a_late_operation_drops_only_its_own_connection() {
    let server = Server::start();
    let store = RedisStore::new(&server.url()).unwrap();
    store.claim(&look(b"")).await.unwrap();
    let connections = || {
        let stats = server.ask_text(&["INFO", "stats"]);
        let (_, count) = stats.split_once("total_connections_received:").unwrap();
        let count = count.split("\r\n").next().unwrap();
        count.parse::<usize>().unwrap()
    };
    let before = connections();
    // Both are late. The second one fails after the first has connected again.
    server.ask_text(&["CLIENT", "PAUSE", "900"]);
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.claim(&look(b"")).await }
    });
    tokio::time::sleep(Duration::from_millis(250)).await;
    store.claim(&look(b"")).await.unwrap();
    first.await.unwrap().unwrap();
    // The store made one connection, this test two.
    assert_eq!(connections() - before, 3);
}

#[tokio::test]
async fn an_operation_is_repeated_after_500_ms_and_fails_after_another_second() {
    let server = Server::start();
    // Loads the script into the server.
    let near = RedisStore::new(&server.url()).unwrap();
    near.claim(&look(b"")).await.unwrap();
    let ask = async |after: Duration| {
        let url = slow(server.port, after).await;
        let start = now();
        let answered = RedisStore::new(&url).unwrap().claim(&look(b"")).await;
        (answered.is_ok(), now() - start)
    };
    let ms = Duration::from_millis;
    // A busy machine may take longer, so this runs up to ten times.
    let mut served = false;
    for _ in 0..10 {
        let (answered, took) = ask(ms(600)).await;
        assert!(!answered || took >= ms(1_100), "{took:?}");
        served |= answered;
        if served {
            break;
        }
    }
    assert!(served);
    let (answered, took) = ask(ms(1_500)).await;
    assert!(!answered && took >= ms(1_500), "{took:?}");
}

const URL: &str = "FLEET_TEST_TLS_URL";
const ROOTS: &str = "FLEET_TEST_TLS_ROOTS";
const PROVIDER: &str = "FLEET_TEST_TLS_PROVIDER";

/// Not a test: a program that uses a store over TLS. A test runs it as a process of its own, because
/// rustls has one crypto provider for each process.
#[tokio::test]
async fn use_tls() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let mut suites = aws_lc_rs::default_provider().cipher_suites;
    if std::env::var_os(PROVIDER).is_some() {
        suites.truncate(1);
        let provider = CryptoProvider {
            cipher_suites: suites.clone(),
            ..aws_lc_rs::default_provider()
        };
        provider.install_default().unwrap();
    }
    let roots = std::fs::read(std::env::var_os(ROOTS).unwrap()).unwrap();
    let store = RedisStore::new(&url).unwrap();
    let store = store.root_certificates(roots).unwrap();
    store.claim(&look(b"")).await.unwrap();
    let used = CryptoProvider::get_default().unwrap();
    assert_eq!(used.cipher_suites, suites);
}

#[tokio::test]
async fn tls_uses_the_crypto_provider_of_the_program_or_the_default() {
    let (server, _) = Server::with_tls(&[]);
    for installed in [false, true] {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program
            .args(["--exact", "link::use_tls"])
            .env(URL, format!("rediss://localhost:{}", server.port))
            .env(ROOTS, server.dir.join("cert.pem"));
        if installed {
            program.env(PROVIDER, "");
        }
        let ran = program.output().unwrap();
        let shown = String::from_utf8_lossy(&ran.stdout);
        assert!(
            ran.status.success() && shown.contains("1 passed"),
            "{installed} {shown}"
        );
    }
}
