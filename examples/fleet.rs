//! Thirty pods, one token: a cold start, three lives, a leader killed in
//! mid-fetch, and Redis stopped and started.
//!
//! Starts a real `redis-server` of its own and a simulated OfficeRnD. A minute
//! takes 20 s here, and a token lives for 10 s. Ends with status 1 if anything
//! that it claims does not hold.
//!
//! ```text
//! cargo run --example fleet --features redis,reqwest
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it proves")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use officernd_auth::fleet::RedisStore;
use officernd_auth::testing::{Fault, Simulator};
use officernd_auth::{
    Allowance, BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer,
    SharedTokenProvider, TokenCache,
};

const PODS: usize = 30;
const MINUTE: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(10);
/// No step takes longer, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

type Shared = SharedTokenProvider<HttpTokenProvider, RedisStore>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if let Ok(port) = std::env::var("FLEET_VICTIM") {
        return victim(port.parse()?).await;
    }
    let mut redis = Redis::start()?;
    let officernd = Simulator::builder()
        .token_life(LIFE)
        .rate_limit(5, MINUTE)
        .latency(Duration::from_millis(100))
        .start()
        .await?;
    let report = Report::new(&officernd);
    println!("{PODS} pods, a token lives {LIFE:?}, OfficeRnD allows 5 requests in {MINUTE:?}\n");

    let pods: Vec<TokenCache> = (0..PODS)
        .map(|_| Ok(pod(credentials(&officernd), redis.port)?.1))
        .collect::<Result<_, BoxError>>()?;
    let traffic: Vec<_> = pods.iter().map(|pod| report.drive(pod.clone())).collect();
    renewed(&pods, 1).await?;
    report.phase("cold start", 1)?;
    for (life, generation) in [("first", 2), ("second", 3), ("third", 4)] {
        renewed(&pods, generation).await?;
        report.phase(&format!("{life} life over"), 1)?;
    }

    // A process takes the lease, sends its request, and is killed. Its lease is
    // for another 6 s; the token of the others ends before that.
    tokio::time::sleep(LIFE / 2).await;
    officernd.token_faults().next(1, Fault::Hang);
    let sent = officernd.token_requests() + 1;
    let mut leader = Command::new(std::env::current_exe()?)
        .env("FLEET_VICTIM", redis.port.to_string())
        .env("OFFICERND_CLIENT_ID", officernd.client_id())
        .env("OFFICERND_CLIENT_SECRET", officernd.client_secret())
        .env("OFFICERND_SCOPE", officernd.scope())
        .env("OFFICERND_TOKEN_URL", officernd.token_url())
        .spawn()?;
    let reached = officernd.token_requests_reach(sent);
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    leader.kill()?;
    leader.wait()?;
    reached?;
    renewed(&pods, 5).await?;
    report.phase("leader killed in mid-fetch", 2)?;

    // Nobody needs Redis now but a pod that starts.
    redis.kill();
    let (provider, late) = pod(credentials(&officernd), redis.port)?;
    late.token().await?;
    let status = provider.status();
    claim(
        !status.available && status.direct == 1,
        "a pod that starts without Redis asks OfficeRnD itself",
    )?;
    report.phase("a pod starts while Redis is down", 1)?;
    redis.run()?;
    renewed(&pods, 6).await?;
    report.phase("Redis is back, empty", 1)?;

    report.stop.store(true, Ordering::Relaxed);
    for traffic in traffic {
        traffic.await?;
    }
    report.ledger()
}

/// A pod in a process of its own, which leads the next fetch.
async fn victim(redis: u16) -> Result<(), BoxError> {
    let (_, victim) = pod(ClientCredentials::from_env()?, redis)?;
    victim.token().await?;
    victim.refresh().await?;
    Ok(())
}

fn claim(holds: bool, what: &str) -> Result<(), BoxError> {
    match holds {
        true => Ok(()),
        false => Err(format!("this does not hold: {what}").into()),
    }
}

/// Waits until every pod has had so many tokens.
async fn renewed(pods: &[TokenCache], generation: u64) -> Result<(), BoxError> {
    let all = async {
        for pod in pods {
            while pod.status().generation < generation {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let done = tokio::time::timeout(PATIENCE, all).await;
    claim(done.is_ok(), "every pod has its next token in time")
}

fn credentials(officernd: &Simulator) -> ClientCredentials {
    ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url())
}

/// A pod with a provider, a connection and a cache of its own. They are tasks
/// of one process, so they have one allowance.
fn pod(credentials: ClientCredentials, redis: u16) -> Result<(Shared, TokenCache), BoxError> {
    static ALLOWANCE: Mutex<Option<Allowance>> = Mutex::new(None);

    let store = RedisStore::new(&format!("redis://127.0.0.1:{redis}"))?;
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

    /// What the last phase came to, against what it should have cost.
    fn phase(&self, name: &str, cost: u64) -> Result<(), BoxError> {
        let now = self.officernd.token_requests();
        let mut before = self.requests.lock().map_err(|_| "poisoned")?;
        let requests = now - std::mem::replace(&mut *before, now);
        println!(
            "{:5.1} s  {name:34} token requests: {requests}   longest wait: {:4} ms",
            self.start.elapsed().as_secs_f64(),
            self.seen.longest_ms.swap(0, Ordering::Relaxed),
        );
        claim(requests == cost, &format!("{name}: {cost} token requests"))
    }

    /// Every token request, with how many there were in the minute before it.
    fn ledger(&self) -> Result<(), BoxError> {
        let requests = self.officernd.requests();
        let token_requests = requests.iter().filter(|r| r.path() == "/oauth/token");
        let sent: Vec<Duration> = token_requests.map(|request| request.at()).collect();
        let ledger = sent.iter().map(|at| {
            let minute = |other: &&Duration| *other <= at && *at - **other < MINUTE;
            let in_minute = sent.iter().filter(minute).count();
            format!("{:.1} s ({in_minute})", at.as_secs_f64())
        });
        println!(
            "\nsent at (with the minute before): {}",
            ledger.collect::<Vec<_>>().join(", ")
        );
        let most = self.officernd.max_token_requests_in(MINUTE);
        let asked = self.seen.asked.load(Ordering::Relaxed);
        let failed = self.seen.failed.load(Ordering::Relaxed);
        println!(
            "{} token requests, at most {most} in any minute",
            sent.len()
        );
        println!("{asked} requests for a token by pods, {failed} failed");
        claim(most <= 5, "at most five token requests a minute")?;
        claim(failed == 0, "no request fails")
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
