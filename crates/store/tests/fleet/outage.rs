//! Whatever the store does, requests go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use officernd_auth_store::{RedisStore, TokenStore};
use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pods::{MINUTE, ask_all, look, now, pod};
use testkit::redis::Server;

async fn serves_without(url: &str) -> String {
    let officernd = Simulator::start().await.unwrap();
    let (provider, cache) = pod(&officernd, url);
    cache.token().await.unwrap();
    let status = provider.status();
    assert!(!status.available);
    assert_eq!((status.direct, status.failures, status.taken), (1, 1, 0));
    // The breaker spares it the next operations.
    cache.refresh().await.unwrap();
    assert_eq!(provider.status().failures, 1);
    assert_eq!(officernd.token_requests(), 2);
    status.last_error.unwrap()
}

#[tokio::test]
async fn a_store_that_is_not_there_stopped_or_refuses_is_stepped_around() {
    let error = serves_without("redis://127.0.0.1:1").await;
    assert!(error.contains("refuses connections"), "{error}");

    let server = Server::with(&["--requirepass", "hunter2"]);
    let error = serves_without(&server.url()).await;
    assert!(error.contains("is a password missing?"), "{error}");
    let wrong = format!("redis://:hunter3@127.0.0.1:{}", server.port);
    let error = serves_without(&wrong).await;
    assert!(error.contains("user or password"), "{error}");

    let server = Server::start();
    server.stop();
    let error = serves_without(&server.url()).await;
    assert!(error.contains("did not answer"), "{error}");
    server.go_on();

    server.ask_text(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = serves_without(&server.url()).await;
    assert!(error.contains("OOM"), "{error}");
    server.ask_text(&["CONFIG", "SET", "maxmemory", "0"]);

    // A replica whose master is away, read-only.
    server.ask_text(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = serves_without(&server.url()).await;
    assert!(
        error.contains("read-only") || error.contains("READONLY"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stopped_redis_costs_a_request_three_seconds_once_and_then_nothing_for_ten() {
    let server = Server::start();
    let officernd = Simulator::builder().no_rate_limit().start().await.unwrap();
    for warm in [true, false] {
        let (provider, cache) = pod(&officernd, &server.url());
        if warm {
            cache.token().await.unwrap();
        }
        server.stop();
        let mut waits = Vec::new();
        for _ in 0..3 {
            let start = now();
            cache.refresh().await.unwrap();
            waits.push(now() - start);
        }
        println!("stopped Redis, connected before: {warm}; three fetches in a row: {waits:?}");
        // The breaker's 3 s are exact in tests/it/store.rs; here a machine may be busy.
        assert!(waits[0] < Duration::from_secs(7), "{waits:?}");
        assert!(
            waits[1..].iter().all(|wait| *wait < Duration::from_secs(2)),
            "{waits:?}"
        );
        let status = provider.status();
        assert_eq!((status.failures, status.direct), (1, 3));
        server.go_on();
    }
}

/// Passes bytes on, each answer so much later.
async fn slow_lane(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lane = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                    tokio::time::sleep(delay).await;
                    if to_client.write_all(&bytes[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    lane
}

#[tokio::test]
async fn a_store_that_answers_five_seconds_late_or_garbage_is_stepped_around() {
    let server = Server::start();
    let lane = slow_lane(server.port, Duration::from_secs(5)).await;
    serves_without(&format!("redis://127.0.0.1:{lane}")).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    serves_without(&format!("redis://127.0.0.1:{port}")).await;
}

/// Passes bytes on, but to connections from before the last cut.
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
async fn a_connection_that_goes_silent_is_replaced_although_others_use_it_too() {
    let server = Server::start();
    let (lane, cuts) = cut_lane(server.port).await;
    let store = RedisStore::new(&format!("redis://127.0.0.1:{lane}")).unwrap();
    let look = look(b"x");
    store.claim(&look).await.unwrap();
    cuts.fetch_add(1, Ordering::SeqCst);
    // As a breaker does: gives up without a word.
    let limit = Duration::from_millis(300);
    let claim = tokio::time::timeout(limit, store.claim(&look)).await;
    claim.unwrap_err();
    store.claim(&look).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_a_little_slow_still_helps() {
    let server = Server::start();
    let lane = slow_lane(server.port, Duration::from_millis(20)).await;
    let url = format!("redis://127.0.0.1:{lane}");
    let officernd = Simulator::start().await.unwrap();
    let pods: Vec<_> = (0..20).map(|_| pod(&officernd, &url).1).collect();
    println!(
        "20 caches cold, 20 ms away: longest wait {:?}",
        ask_all(&pods).await
    );
    assert_eq!(officernd.token_requests(), 1);
}

#[tokio::test]
async fn a_store_that_comes_back_empty_is_used_again() {
    let mut server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    let (provider, one) = pod(&officernd, &server.url());
    one.token().await.unwrap();
    // The connection is dead and the client does not know: no failure.
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
    // The breaker is open for ten seconds; then one tries.
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    one.refresh().await.unwrap();
    let status = provider.status();
    assert!(status.available);
    assert_eq!((status.direct, status.fetched), (1, 3));
    assert!(officernd.max_token_requests_in(MINUTE) <= 5);
}

#[tokio::test]
async fn a_store_that_stops_and_goes_on_in_any_order_fails_no_request() {
    let mut server = Server::start();
    // A pod that is cut off fetches by itself: only failures are counted here.
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
            1 => server.go_on(),
            2 => server.kill(),
            _ => server.restart(),
        }
        for _ in 0..5 {
            ask_all(&pods).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
