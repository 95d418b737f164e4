//! Several gateways that share a token.

use std::time::Duration;

use officernd_simulator::Simulator;

use crate::child::{Gateway, LOCATIONS, within};
use crate::folder::Folder;
use crate::network::refusing;

const GATEWAYS: usize = 20;
const REQUESTS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_cold_gateways_share_one_token() {
    let simulator = Simulator::start().await.unwrap();
    let redis = testkit::redis::Server::start();
    let store = redis.url();
    // A rollout: all start at once.
    let starting: Vec<_> = (0..GATEWAYS)
        .map(|_| {
            let mut command = crate::child::gateway();
            command.env("GATEWAY_STORE", &store);
            Gateway::command(&mut command, &simulator, simulator.url());
            tokio::task::spawn_blocking(|| Gateway::spawn(command))
        })
        .collect();
    let mut gateways = Vec::new();
    for gateway in starting {
        gateways.push(gateway.await.unwrap());
    }
    let calls: Vec<_> = gateways
        .iter()
        .flat_map(|gateway| std::iter::repeat_n(gateway, REQUESTS))
        .map(|gateway| tokio::spawn(gateway.http.get(gateway.url(LOCATIONS)).send()))
        .collect();
    let mut failed = 0;
    for call in calls {
        let response = within(call).await.unwrap();
        failed += usize::from(!response.is_ok_and(|response| response.status() == 200));
    }
    let requests = simulator.token_requests();
    println!("{GATEWAYS} gateways: {requests} token requests, {failed} failed");
    assert_eq!((requests, failed), (1, 0));
    let mut taken = 0;
    for gateway in &gateways {
        let fetched = "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"ok\"} 1";
        let metrics = gateway.metrics_with(fetched).await;
        let shared = "officernd_auth_store_refreshes_total{source=\"taken\"} 1";
        taken += usize::from(metrics.contains(shared));
    }
    assert_eq!(taken, GATEWAYS - 1);
}

#[tokio::test]
async fn gateways_share_a_token_in_a_folder() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("store");
    let store = format!("file:{}", folder.path().display());
    let more = [("GATEWAY_STORE", store.as_str())];
    for _ in 0..3 {
        let gateway = Gateway::start(&simulator, simulator.url(), &more);
        assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    }
    assert_eq!(simulator.token_requests(), 1);
}

#[tokio::test]
async fn requests_succeed_while_the_store_is_down_and_its_error_is_shown() {
    let simulator = Simulator::start().await.unwrap();
    let (_bound, nowhere) = refusing();
    let store = format!("redis://:hunter2@{nowhere}");
    let more = [("GATEWAY_STORE", store.as_str())];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    for path in ["/readyz", "/"] {
        let (status, shown) = gateway.get(path).await;
        assert_eq!(status, 200);
        assert!(!shown.contains("\"store_problem\":null"), "{shown}");
        assert!(
            !shown.contains("store error<dd>none") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_corrected_secret_file_heals_within_seconds_with_and_without_a_store() {
    for store in ["", "file"] {
        let simulator = Simulator::start().await.unwrap();
        let folder = Folder::new(&format!("secret-{store}"));
        let secret = folder.file("secret", "wrong\n");
        let mut command = crate::child::gateway();
        Gateway::command(&mut command, &simulator, simulator.url());
        command
            .env_remove("OFFICERND_CLIENT_SECRET")
            .env("OFFICERND_CLIENT_SECRET_FILE", &secret);
        if !store.is_empty() {
            let store = format!("file:{}", folder.join("store").display());
            command.env("GATEWAY_STORE", store);
        }
        let gateway = Gateway::spawn(command);
        assert_ne!(gateway.get(LOCATIONS).await.0, 200);
        std::fs::write(&secret, simulator.client_secret()).unwrap();
        let corrected = std::time::Instant::now();
        within(async {
            while gateway.get(LOCATIONS).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
        let took = corrected.elapsed();
        println!("healed after {took:?}");
        // 5 s, on a machine that may be busy; a backoff is a minute or more.
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert_eq!(simulator.token_requests(), 2);
    }
}
