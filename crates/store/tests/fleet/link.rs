//! The connection to Redis: what a server that does not answer costs, and whose
//! cryptography TLS uses.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use officernd_auth_store::{RedisStore, TokenStore};
use officernd_simulator::Simulator;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::pods::{look, now};
use testkit::redis::Server;

/// Runs an operation, and tells whether the store answered.
async fn answers(store: &RedisStore, scene: &str, table: &mut String) -> bool {
    let start = now();
    let answered = store.claim(&look(b"")).await.is_ok();
    let took = now() - start;
    *table += &format!(
        "{scene}: {took:.2?}, {}\n",
        if answered { "served" } else { "away" }
    );
    // 3 s, and as much again for a machine that does something else.
    assert!(took < Duration::from_secs(6), "{table}");
    answered
}

/// Accepts connections in the kernel only.
fn hung() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    (listener, url)
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
    server.go_on();
    assert!(answers(&warm, "going on", &mut table).await);
    assert!(!answers(&cold("redis://127.0.0.1:1"), "refused", &mut table).await);
    println!("{table}");
}

#[tokio::test]
async fn a_server_that_drops_syns_costs_three_seconds_at_most() {
    let mut table = String::new();
    use socket2::{Domain, Socket, Type};

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
async fn members_that_hang_keep_no_one_from_the_others() {
    let mut table = String::new();
    let master = Server::start();
    let sentinel = master.sentinel("");
    let (_one, one) = hung();
    let (_two, two) = hung();
    let working = sentinel.url();
    for members in [
        vec![&*working],
        vec![&*one, &*working],
        vec![&*one, &*two, &*working],
    ] {
        let scene = format!("Sentinel, {} hung first", members.len() - 1);
        let store = RedisStore::sentinel(members, "redis://mymaster").unwrap();
        assert!(answers(&store, &scene, &mut table).await);
    }
    let store = RedisStore::sentinel([&*one, &*two], "redis://mymaster").unwrap();
    assert!(!answers(&store, "Sentinel, all hung", &mut table).await);

    let node = Server::node(&[]);
    node.ask_text(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    testkit::redis::eventually("the cluster is up", || {
        let info = node.ask_text(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok")
    });
    let working = node.url();
    let warm = RedisStore::cluster([&*working]).unwrap();
    assert!(answers(&warm, "cluster", &mut table).await);
    let store = RedisStore::cluster([&*one, &*working]).unwrap();
    assert!(answers(&store, "cluster, hung seed first", &mut table).await);
    node.stop();
    assert!(!answers(&warm, "cluster, stopped, warm", &mut table).await);
    let cold = RedisStore::cluster([&*working]).unwrap();
    assert!(!answers(&cold, "cluster, stopped, cold", &mut table).await);
    println!("{table}");
}

#[tokio::test]
async fn an_operation_that_was_late_forgets_its_own_connection_only() {
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
    // Both are late; the second one when the first has connected again.
    server.ask_text(&["CLIENT", "PAUSE", "900"]);
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.claim(&look(b"")).await }
    });
    tokio::time::sleep(Duration::from_millis(250)).await;
    store.claim(&look(b"")).await.unwrap();
    first.await.unwrap().unwrap();
    // One is of the store, the others of this test.
    assert_eq!(connections() - before, 3);
}

/// Passes bytes to the server at once, and its answers after this time.
async fn late(port: u16, late: Duration) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            let ((mut asks, mut hears), (mut answers, mut asked)) =
                (client.into_split(), server.unwrap().into_split());
            tokio::spawn(async move { tokio::io::copy(&mut asks, &mut asked).await });
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = answers.read(&mut buffer).await {
                    tokio::time::sleep(late).await;
                    if hears.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn an_answer_after_500_ms_is_asked_for_again_and_one_after_a_second_is_given_up() {
    let server = Server::start();
    // The server knows the script.
    let near = RedisStore::new(&server.url()).unwrap();
    near.claim(&look(b"")).await.unwrap();
    let ask = async |after: Duration| {
        let url = late(server.port, after).await;
        let start = now();
        let answered = RedisStore::new(&url).unwrap().claim(&look(b"")).await;
        (answered.is_ok(), now() - start)
    };
    let ms = Duration::from_millis;
    // A busy machine may take longer: then it is tried again.
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

#[tokio::test]
async fn why_the_store_failed_can_be_seen_and_the_password_cannot() {
    let officernd = Simulator::start().await.unwrap();
    let (tls, _) = Server::with_tls(&[]);
    let (_, other_roots) = Server::with_tls(&[]);
    let tls = RedisStore::new(&format!("rediss://app:hunter2@localhost:{}", tls.port)).unwrap();
    let (_listener, hung) = hung();
    for (store, shown) in [
        (
            RedisStore::new("redis://app:hunter2@127.0.0.1:1").unwrap(),
            "Connection refused",
        ),
        (
            tls.root_certificates(other_roots).unwrap(),
            "invalid peer certificate",
        ),
        (RedisStore::new(&hung).unwrap(), "in time"),
    ] {
        let provider = crate::pods::provider(&officernd, store);
        crate::pods::cache(&provider).token().await.unwrap();
        let shown_error = provider.status().last_error.unwrap();
        assert!(shown_error.contains(shown), "{shown_error}");
        assert!(!shown_error.contains("hunter2"), "{shown_error}");
    }
}

const URL: &str = "FLEET_TEST_TLS_URL";
const ROOTS: &str = "FLEET_TEST_TLS_ROOTS";
const PROVIDER: &str = "FLEET_TEST_TLS_PROVIDER";

/// Not a test: a program that uses a store over TLS. A test runs it as a process
/// of its own, because the provider of cryptography belongs to the process.
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
async fn tls_uses_the_provider_that_the_program_installed_or_the_default() {
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
