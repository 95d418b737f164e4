//! Twenty pods that share one token: a cold start, a refresh, and an outage of Redis.
//!
//! Starts its own `redis-server`, and a simulated OfficeRnD whose tokens expire after 8 s. Exits with 1 if a
//! printed claim is wrong.
//!
//! ```text
//! cargo run -p officernd-auth-store --example fleet
//! ```

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use officernd_auth::{
    BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer, RateLimit, TokenCache,
};
use officernd_auth_store::RedisStore;
use officernd_auth_store::SharedTokenProvider;
use officernd_simulator::Simulator;

const PODS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut redis = start_redis(port)?;
    let life = Duration::from_secs(8);
    let officernd = Simulator::builder().token_life(life).start().await?;
    let pods = (0..PODS).map(|_| pod(&officernd, port));
    let pods: Vec<TokenCache> = pods.collect::<Result<_, _>>()?;

    for pod in &pods {
        pod.token().await?;
    }
    holds(&officernd, 1, "twenty cold pods cost one token request")?;

    for pod in &pods {
        pod.refresh().await?;
    }
    holds(
        &officernd,
        2,
        "a refresh of all pods costs one token request",
    )?;

    redis.kill()?;
    redis.wait()?;
    for pod in &pods {
        pod.token().await?;
    }
    holds(
        &officernd,
        2,
        "with Redis down, pods keep using their token",
    )?;
    pod(&officernd, port)?.token().await?;
    holds(
        &officernd,
        3,
        "with Redis down, a new pod sends its own token request",
    )?;

    let mut redis = start_redis(port)?;
    let late = pod(&officernd, port)?;
    late.token().await?;
    pod(&officernd, port)?.token().await?;
    holds(
        &officernd,
        4,
        "with Redis back and empty, two new pods cost one token request",
    )?;
    redis.kill()?;
    redis.wait()?;
    Ok(())
}

/// Makes a pod, with its own provider, connection, rate limit and cache.
fn pod(officernd: &Simulator, redis: u16) -> Result<TokenCache, BoxError> {
    let store = RedisStore::new(&format!("redis://127.0.0.1:{redis}"))?;
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let provider = HttpTokenProvider::new(credentials)?;
    let provider = SharedTokenProvider::new(provider, store);
    let layer = OfficeRndAuthLayer::builder(provider)
        .rate_limit(RateLimit::new(5, Duration::from_secs(60)))
        .build()?;
    Ok(layer.cache().clone())
}

fn holds(officernd: &Simulator, requests: u64, claim: &str) -> Result<(), BoxError> {
    println!(
        "{claim}: {} token requests so far",
        officernd.token_requests()
    );
    match officernd.token_requests() == requests {
        true => Ok(()),
        false => Err(format!("this is wrong: {claim}").into()),
    }
}

fn start_redis(port: u16) -> Result<Child, BoxError> {
    let process = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("apt-get install redis-server ({error})"))?;
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("redis-server does not listen".into())
}
