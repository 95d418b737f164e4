//! Thirty pods, one token: a cold start, three lives, a leader killed in
//! mid-fetch, and Redis stopped and started.
//!
//! Starts a real `redis-server` of its own and a simulated OfficeRnD. A minute
//! takes 20 s here, and a token lives for 10 s.
//!
//! ```text
//! cargo run --example fleet --features redis,testing
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it proves")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use officernd_auth::store::RedisStore;
use officernd_auth::testing::{Fault, Simulator};
use officernd_auth::{
    Allowance, BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer,
    SharedTokenProvider, TokenCache,
};

const PODS: usize = 30;
const MINUTE: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut redis = Redis::start()?;
    let officernd = Simulator::builder()
        .token_life(LIFE)
        .rate_limit(5, MINUTE)
        .latency(Duration::from_millis(100))
        .start()
        .await?;
    let report = Report::new(&officernd);

    let pods: Vec<TokenCache> = (0..PODS)
        .map(|_| Ok(pod(&officernd, &redis)?.1))
        .collect::<Result<_, BoxError>>()?;
    let traffic: Vec<_> = pods.iter().map(|pod| report.drive(pod.clone())).collect();

    tokio::time::sleep(Duration::from_secs(1)).await;
    report.phase("cold start");
    for life in ["first", "second", "third"] {
        renewed(&pods).await;
        report.phase(&format!("{life} life over"));
    }

    // A pod takes the lease, sends its request, and is gone. Its lease is for
    // another 6 s; the token of the others ends before that.
    tokio::time::sleep(LIFE / 2).await;
    officernd.token_faults().next(1, Fault::Hang);
    let sent = officernd.token_requests() + 1;
    let (_, victim) = pod(&officernd, &redis)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.spawn(async move {
        victim.token().await?;
        victim.refresh().await
    });
    officernd.token_requests_reach(sent).await;
    runtime.shutdown_background();
    renewed(&pods).await;
    report.phase("leader killed in mid-fetch");

    // Nobody needs Redis now but a pod that starts.
    redis.kill();
    let (provider, late) = pod(&officernd, &redis)?;
    late.token().await?;
    let status = provider.status();
    assert!(!status.available && status.direct == 1);
    report.phase("a pod starts while Redis is down");
    redis.run()?;
    renewed(&pods).await;
    report.phase("Redis is back, empty");

    report.stop.store(true, Ordering::Relaxed);
    for traffic in traffic {
        traffic.await?;
    }
    let most = officernd.max_token_requests_in(MINUTE);
    println!(
        "\n{} requests for a token by pods, {} failed",
        report.asked(),
        report.failed()
    );
    println!(
        "token requests, and the most in any minute: {} and {most}",
        officernd.token_requests()
    );
    assert!(most <= 5);
    assert_eq!(report.failed(), 0);
    Ok(())
}

/// Waits until every pod has a newer token.
async fn renewed(pods: &[TokenCache]) {
    let generations: Vec<u64> = pods.iter().map(|pod| pod.status().generation).collect();
    for (pod, generation) in pods.iter().zip(generations) {
        while pod.status().generation == generation {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A pod with a provider, a connection and a cache of its own. They are tasks
/// of one process, so they have one allowance.
fn pod(
    officernd: &Simulator,
    redis: &Redis,
) -> Result<
    (
        SharedTokenProvider<HttpTokenProvider, RedisStore>,
        TokenCache,
    ),
    BoxError,
> {
    static ALLOWANCE: Mutex<Option<Allowance>> = Mutex::new(None);

    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let store = RedisStore::new(&format!("redis://127.0.0.1:{}", redis.port))?;
    let provider = SharedTokenProvider::new(HttpTokenProvider::new(credentials)?, store);
    let mut allowance = ALLOWANCE.lock().map_err(|_| "poisoned")?;
    let allowance = allowance.get_or_insert_with(|| Allowance::new(5, MINUTE));
    let layer = OfficeRndAuthLayer::builder(provider.clone())
        .allowance(allowance.clone())
        .refresh_ahead(Duration::from_secs(1))
        .fetch_timeout(Duration::from_secs(1))
        .build()?;
    Ok((provider, layer.cache().clone()))
}

/// What the pods' requests for tokens came to.
struct Report<'a> {
    officernd: &'a Simulator,
    start: Instant,
    requests: Mutex<u64>,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    asked: AtomicU64,
    failed: AtomicU64,
    longest_ms: AtomicU64,
}

impl<'a> Report<'a> {
    #[expect(clippy::disallowed_methods, reason = "measures")]
    fn new(officernd: &'a Simulator) -> Self {
        Self {
            officernd,
            start: Instant::now(),
            requests: Mutex::new(0),
            seen: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// Asks for the token ten times a second.
    #[expect(clippy::disallowed_methods, reason = "measures")]
    fn drive(&self, pod: TokenCache) -> tokio::task::JoinHandle<()> {
        let (seen, stop) = (Arc::clone(&self.seen), Arc::clone(&self.stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                if let Err(error) = pod.token().await {
                    seen.failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("failed: {error}");
                }
                let waited = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                seen.longest_ms.fetch_max(waited, Ordering::Relaxed);
                seen.asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }

    fn phase(&self, name: &str) {
        let now = self.officernd.token_requests();
        let Ok(mut before) = self.requests.lock() else {
            return;
        };
        println!(
            "{:5.1} s  {name:34} token requests: {}   longest wait: {:4} ms",
            self.start.elapsed().as_secs_f64(),
            now - std::mem::replace(&mut *before, now),
            self.seen.longest_ms.swap(0, Ordering::Relaxed),
        );
    }

    fn asked(&self) -> u64 {
        self.seen.asked.load(Ordering::Relaxed)
    }

    fn failed(&self) -> u64 {
        self.seen.failed.load(Ordering::Relaxed)
    }
}

/// A `redis-server` on a free port that keeps nothing on disk.
struct Redis {
    port: u16,
    process: Option<Child>,
}

impl Redis {
    fn start() -> Result<Self, BoxError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut redis = Self {
            port,
            process: None,
        };
        redis.run()?;
        Ok(redis)
    }

    fn run(&mut self) -> Result<(), BoxError> {
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!(
                    "this example starts a redis-server: apt-get install redis-server ({error})"
                )
            })?;
        self.process = Some(process);
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("redis-server does not listen".into())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
