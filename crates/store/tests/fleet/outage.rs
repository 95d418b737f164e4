//! Requests succeed when Redis is down, slow, read-only, full, or restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use officernd_auth_store::{RedisStore, TokenStore};
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pods::{MINUTE, call_all, look, pod, provider, slow};
use testkit::redis::Server;

/// Checks that a pod fetches its own tokens. Returns the error of the store.
async fn fetches_without(store: RedisStore) -> String {
    let officernd = Simulator::start().await.unwrap();
    let provider = provider(&officernd, store);
    let cache = crate::pods::cache(&provider);
    cache.token().await.unwrap();
    let status = provider.status();
    assert!(!status.available);
    assert_eq!((status.direct, status.failures, status.taken), (1, 1, 0));
    // The circuit breaker is open, so the store is not used.
    cache.refresh().await.unwrap();
    assert_eq!(provider.status().failures, 1);
    assert_eq!(officernd.token_requests(), 2);
    status.last_error.unwrap()
}

#[tokio::test]
async fn requests_succeed_without_a_redis_that_fails_and_the_status_says_why() {
    let without = async |url: &str| fetches_without(RedisStore::new(url).unwrap()).await;
    let mut shown = without("redis://app:hunter2@127.0.0.1:1").await;
    assert!(shown.contains("refuses connections"), "{shown}");
    assert!(shown.contains("Connection refused"), "{shown}");

    let server = Server::with(&["--requirepass", "hunter2"]);
    shown += &without(&server.url()).await;
    assert!(shown.contains("is a password missing?"), "{shown}");
    shown += &without(&format!("redis://:hunter3@127.0.0.1:{}", server.port)).await;
    assert!(shown.contains("user or password"), "{shown}");

    let server = Server::start();
    server.stop();
    shown += &without(&server.url()).await;
    assert!(shown.contains("in time"), "{shown}");
    server.resume();

    server.ask_text(&["CONFIG", "SET", "maxmemory", "1"]);
    shown += &without(&server.url()).await;
    assert!(shown.contains("OOM"), "{shown}");
    server.ask_text(&["CONFIG", "SET", "maxmemory", "0"]);

    // A replica whose master is down is read-only.
    server.ask_text(&["REPLICAOF", "127.0.0.1", "1"]);
    shown += &without(&server.url()).await;
    assert!(shown.contains("read-only"), "{shown}");

    let (tls, _) = Server::with_tls(&[]);
    let (_, other_roots) = Server::with_tls(&[]);
    let tls = format!("rediss://app:hunter2@localhost:{}", tls.port);
    let tls = RedisStore::new(&tls).unwrap();
    shown += &fetches_without(tls.root_certificates(other_roots).unwrap()).await;
    assert!(shown.contains("invalid peer certificate"), "{shown}");

    let server = Server::start();
    shown += &without(&slow(server.port, Duration::from_secs(5)).await).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    shown += &without(&format!("redis://127.0.0.1:{port}")).await;
    assert!(!shown.contains("hunter"), "{shown}");
}

#[tokio::test]
async fn a_key_of_another_type_puts_the_store_out_of_use_until_it_is_deleted() {
    let server = Server::start();
    let officernd = Simulator::builder().no_rate_limit().start().await.unwrap();
    pod(&officernd, &server.url()).1.token().await.unwrap();
    let keys = server.keys();
    let entry = keys.iter().find(|key| key.ends_with(":entry")).unwrap();
    let window = keys.iter().find(|key| key.ends_with(":window")).unwrap();
    for key in [entry, &entry.replace(":entry", ":lease"), window] {
        server.ask_text(&["DEL", entry, key]);
        server.ask_text(&["LPUSH", key, "x"]);
        let (provider, cache) = pod(&officernd, &server.url());
        cache.token().await.unwrap();
        let status = provider.status();
        assert_eq!((status.available, status.direct), (false, 1), "{key}");

        server.ask_text(&["DEL", key]);
        let (provider, cache) = pod(&officernd, &server.url());
        cache.token().await.unwrap();
        let status = provider.status();
        assert_eq!((status.available, status.fetched), (true, 1), "{key}");
    }
}

/// Forwards bytes, until `cuts` is raised: then nothing more on the connections of before.
async fn cut_lane(port: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lane = listener.local_addr().unwrap().port();
    let cuts = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&cuts);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (cuts, made) = (Arc::clone(&seen), seen.load(Ordering::SeqCst));
            tokio::spawn(async move {
                let (mut up, mut down) = ([0; 4096], [0; 4096]);
                loop {
                    let (from, to) = tokio::select! {
                        Ok(read @ 1..) = client.read(&mut up) => (&up[..read], &mut server),
                        Ok(read @ 1..) = server.read(&mut down) => (&down[..read], &mut client),
                        else => break,
                    };
                    if cuts.load(Ordering::SeqCst) != made {
                        std::future::pending::<()>().await;
                    }
                    if to.write_all(from).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (lane, cuts)
}

#[tokio::test]
async fn a_silent_connection_is_replaced_even_if_callers_give_up() {
    let server = Server::start();
    let (lane, cuts) = cut_lane(server.port).await;
    let store = RedisStore::new(&format!("redis://127.0.0.1:{lane}")).unwrap();
    let look = look(b"x");
    store.claim(&look).await.unwrap();
    cuts.fetch_add(1, Ordering::SeqCst);
    // The circuit breaker drops operations like this.
    let limit = Duration::from_millis(300);
    let claim = tokio::time::timeout(limit, store.claim(&look)).await;
    claim.unwrap_err();
    store.claim(&look).await.unwrap();
}

#[tokio::test]
async fn a_store_20_ms_away_makes_twenty_pods_send_one_request() {
    let server = Server::start();
    let url = slow(server.port, Duration::from_millis(20)).await;
    let officernd = Simulator::start().await.unwrap();
    let pods: Vec<_> = (0..20).map(|_| pod(&officernd, &url).1).collect();
    println!(
        "20 caches cold, 20 ms away: longest wait {:?}",
        call_all(&pods).await
    );
    assert_eq!(officernd.token_requests(), 1);
}

#[tokio::test]
async fn a_redis_that_restarts_without_its_data_is_used_again() {
    let mut server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    let (provider, one) = pod(&officernd, &server.url());
    one.token().await.unwrap();
    // The client does not know that its connection is closed. It connects again, without a failure.
    server.restart();
    one.refresh().await.unwrap();
    assert_eq!(
        (provider.status().fetched, provider.status().failures),
        (2, 0)
    );
    let (_, two) = pod(&officernd, &server.url());
    two.token().await.unwrap();
    assert_eq!(officernd.token_requests(), 2);

    server.kill();
    one.refresh().await.unwrap();
    assert_eq!(provider.status().direct, 1);
    server.restart();
    // The circuit breaker is open for 10 s.
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    one.refresh().await.unwrap();
    let status = provider.status();
    assert!(status.available);
    assert_eq!((status.direct, status.fetched), (1, 3));
    assert!(officernd.max_token_requests_in(MINUTE) <= 5);
}

#[tokio::test]
async fn requests_succeed_while_redis_stops_continues_and_restarts() {
    let mut server = Server::start();
    // Without the store each pod fetches its own tokens, so this test counts only failures.
    let officernd = Simulator::builder()
        .token_life(Duration::from_secs(2))
        .no_rate_limit()
        .start()
        .await
        .unwrap();
    let store = RedisStore::new(&server.url()).unwrap();
    let pods: Vec<_> = (0..5)
        .map(|_| {
            let provider = crate::pods::provider(&officernd, store.clone());
            let layer = officernd_auth::OfficeRndAuthLayer::builder(provider)
                .rate_limit(officernd_auth::RateLimit::unlimited());
            layer.build().unwrap().cache().clone()
        })
        .collect();
    for step in 0..8 {
        match step % 4 {
            0 => server.stop(),
            1 => server.resume(),
            2 => server.kill(),
            _ => server.restart(),
        }
        for _ in 0..5 {
            call_all(&pods).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
