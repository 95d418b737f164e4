//! Two hundred pods: what they cost Redis and the token endpoint, and how soon
//! the last of them is served. benches/fleet has thousands, in processes.

use std::time::Duration;

use officernd_auth::fleet::RedisStore;
use officernd_auth::{OfficeRndAuthLayer, RateLimit, TokenCache};
use officernd_simulator::{Fault, Simulator};

use crate::pods::{MINUTE, ask_all, now, pod, provider};
use crate::server::{Server, eventually};
use crate::stores::{args, rights};

const PODS: usize = 200;

fn pods(count: usize, officernd: &Simulator, url: &str) -> Vec<TokenCache> {
    let pod = |_| {
        let provider = provider(officernd, RedisStore::new(url).unwrap());
        let layer = OfficeRndAuthLayer::builder(provider).rate_limit(RateLimit::new(5, MINUTE));
        layer.build().unwrap().cache().clone()
    };
    (0..count).map(pod).collect()
}

/// When each pod had its token, or failed, after the first of them.
async fn spread(pods: &[TokenCache]) -> (Duration, usize) {
    let asked: Vec<_> = pods
        .iter()
        .map(|pod| {
            let pod = pod.clone();
            tokio::spawn(async move { (pod.token().await.is_ok(), now()) })
        })
        .collect();
    let mut ends = Vec::new();
    let mut failed = 0;
    for asked in asked {
        let (served, at) = asked.await.unwrap();
        ends.push(at);
        failed += usize::from(!served);
    }
    (
        *ends.iter().max().unwrap() - *ends.iter().min().unwrap(),
        failed,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_costs_one_request_and_six_commands_a_pod_however_slow_the_endpoint() {
    for latency in [300, 3000] {
        let server = Server::start();
        let officernd = Simulator::start().await.unwrap();
        officernd.set_latency(Duration::from_millis(latency));
        let pods = pods(PODS, &officernd, &server.url());
        let (spread, failed) = spread(&pods).await;
        // The ends of subscriptions are sent behind the answer.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let commands = server.commands() as f64 / PODS as f64;
        println!(
            "{PODS} cold, endpoint {latency} ms: {commands:.1} commands a pod, last {spread:?} after the first"
        );
        assert_eq!((officernd.token_requests(), failed), (1, 0));
        assert!(commands <= 6.0, "{commands}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_full_window_a_pod_sends_ten_commands() {
    let server = Server::start();
    let officernd = Simulator::builder().no_rate_limit().start().await.unwrap();
    let window = Duration::from_secs(12);
    let pod = |_| {
        let store = RedisStore::new(&server.url()).unwrap();
        let layer = OfficeRndAuthLayer::builder(provider(&officernd, store));
        let layer = layer.rate_limit(RateLimit::new(1, window));
        layer.build().unwrap().cache().clone()
    };
    let first = pod(0);
    first.token().await.unwrap();
    // Another one wants a new token as soon as there is a place.
    let pods: Vec<_> = (0..PODS).map(pod).collect();
    ask_all(&pods).await;
    server.ask_text(&["CONFIG", "RESETSTAT"]);
    let start = now();
    let asked = pods.iter().map(|pod| {
        let pod = pod.clone();
        tokio::spawn(async move { pod.refresh().await })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let commands = server.commands() as f64 / PODS as f64;
    println!(
        "{PODS} behind a full window ({:?}): {commands:.1} commands a pod",
        now() - start
    );
    assert!(commands <= 10.0, "{commands}");
    assert_eq!(officernd.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_reaches_all_at_once() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(500));
    officernd.token_faults().always(Fault::Status(403));
    let pods = pods(PODS, &officernd, &server.url());
    let (spread, failed) = spread(&pods).await;
    println!("{PODS} cold, endpoint answers 403: last knows {spread:?} after the first");
    assert_eq!((officernd.token_requests(), failed), (1, PODS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_700_ms_under_a_cold_start_is_waited_out() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(300));
    let pods = pods(PODS, &officernd, &server.url());
    server.stop();
    let start = now();
    let asking = {
        let pods = pods.clone();
        tokio::spawn(async move { ask_all(&pods).await })
    };
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.go_on();
    asking.await.unwrap();
    println!(
        "{PODS} cold, Redis paused for 700 ms: all served after {:?}",
        now() - start
    );
    assert!(
        officernd.token_requests() <= 6,
        "{}",
        officernd.token_requests()
    );
}

/// Twenty pods over a server that forbids something: served all the same.
async fn are_served(url: &str) {
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(1000));
    let pods: Vec<_> = (0..20).map(|_| pod(&officernd, url).1).collect();
    ask_all(&pods).await;
    assert_eq!(officernd.token_requests(), 1);
}

#[tokio::test]
async fn without_channels_pods_poll() {
    let rights = rights("resetchannels -publish -subscribe -unsubscribe");
    let server = Server::with(&args(&rights));
    are_served(&format!("redis://app:hunter2@127.0.0.1:{}", server.port)).await;
}

#[tokio::test]
async fn without_resp3_pods_poll() {
    let server = Server::with(&["--rename-command", "HELLO", ""]);
    are_served(&server.url()).await;
    // Forbidden in place of unknown.
    let server = Server::with(&args(&rights("-hello")));
    are_served(&format!("redis://app:hunter2@127.0.0.1:{}", server.port)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_are_killed_are_made_again() {
    let server = Server::start();
    let officernd = Simulator::start().await.unwrap();
    officernd.set_latency(Duration::from_millis(1500));
    let pods: Vec<_> = (0..20).map(|_| pod(&officernd, &server.url()).1).collect();
    let asking = tokio::spawn(async move { ask_all(&pods).await });
    officernd.token_requests_reach(1).await;
    eventually("they have subscribed", || {
        let channels = server.ask_text(&["PUBSUB", "CHANNELS"]);
        channels.contains("officernd:")
    });
    let killed = server.ask_text(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert!(!killed.starts_with(":0"), "{killed}");
    let longest = asking.await.unwrap();
    println!("20 cold, subscriptions killed: longest wait {longest:?}");
    assert_eq!(officernd.token_requests(), 1);
}
