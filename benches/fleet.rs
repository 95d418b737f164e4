//! What does a fleet cost Redis and the token endpoint, and how soon is the last pod served?
//!
//! Real `redis-server` with its defaults (`tcp-backlog 511`), real processes, a
//! simulated OfficeRnD. Read counts; the milliseconds are those of a machine
//! that also carries Redis and all pods.
//!
//! ```text
//! cargo bench --bench fleet --features redis,reqwest             # 1,000 and 3,000 pods
//! cargo test --bench fleet --features redis,reqwest              # 60 pods, as a check
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench shows what it measures"
)]
#![expect(clippy::disallowed_methods, reason = "measures")]

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use officernd_auth::fleet::RedisStore;
use officernd_auth::testing::{Fault, Simulator};
use officernd_auth::{
    Allowance, BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer,
    SharedTokenProvider, TokenCache,
};

/// One cold start.
struct Scene {
    name: &'static str,
    pods: u64,
    processes: u64,
    /// The pods start within this time.
    over: Duration,
    endpoint: Duration,
    /// Redis is stopped for this long under the start.
    paused: Duration,
    fails: bool,
    /// The fleet's window is full, and frees after this.
    full: Duration,
}

const COLD: Scene = Scene {
    name: "cold, endpoint 0.3 s",
    pods: 1000,
    processes: 20,
    over: Duration::ZERO,
    endpoint: Duration::from_millis(300),
    paused: Duration::ZERO,
    fails: false,
    full: Duration::ZERO,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if let Ok(line) = std::env::var("FLEET_BENCH_PROCESS") {
        return process(&line).await;
    }
    let measures = std::env::args().any(|arg| arg == "--bench");
    let scenes = [
        COLD,
        Scene {
            name: "cold, endpoint 3 s",
            endpoint: Duration::from_secs(3),
            ..COLD
        },
        Scene {
            name: "cold, window full for 12 s",
            full: Duration::from_secs(12),
            ..COLD
        },
        Scene {
            name: "cold, endpoint answers 403",
            fails: true,
            ..COLD
        },
        Scene {
            name: "cold, Redis paused for 700 ms",
            paused: Duration::from_millis(700),
            ..COLD
        },
        Scene {
            name: "cold over 1.5 s",
            pods: 3000,
            over: Duration::from_millis(1500),
            ..COLD
        },
    ];
    println!(
        "| scene | pods (processes) | token requests | failed | first, last after it (ms) | commands a pod |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for mut scene in scenes {
        if !measures {
            (scene.pods, scene.processes) = (60, 3);
        }
        run(&scene).await?;
    }
    Ok(())
}

async fn run(scene: &Scene) -> Result<(), BoxError> {
    let redis = Redis::start()?;
    let officernd = Simulator::builder().latency(scene.endpoint).start().await?;
    if scene.fails {
        officernd.token_faults().always(Fault::Status(403));
    }
    let minute = match scene.full.is_zero() {
        true => Duration::from_secs(60),
        false => scene.full,
    };
    // Long enough for a busy machine to make all pods.
    let start = millis(SystemTime::now())? + 3000 + 12 * scene.pods;
    let pods = scene.pods / scene.processes;
    let processes = (0..scene.processes).map(|at| {
        let line = [
            redis.port.to_string(),
            officernd.client_id(),
            officernd.client_secret(),
            officernd.token_url(),
            pods.to_string(),
            (start + scene.over.as_millis() as u64 * at / scene.processes).to_string(),
            minute.as_millis().to_string(),
            u64::from(scene.full.is_zero()).to_string(),
        ];
        let exe = std::env::current_exe()?;
        let mut command = Command::new(exe);
        command
            .env("FLEET_BENCH_PROCESS", line.join(" "))
            .stdout(Stdio::piped())
            .spawn()
    });
    let processes: Vec<Child> = processes.collect::<Result<_, _>>()?;
    let mut before = 0;
    if !scene.full.is_zero() {
        // Right before the start, another token of the endpoint uses up the window.
        let soon = start.saturating_sub(millis(SystemTime::now())? + 1000);
        tokio::time::sleep(Duration::from_millis(soon)).await;
        let other = pod(
            &officernd.credentials().form_param("other", "1"),
            redis.port,
            1,
            minute,
        )?;
        other.token().await?;
        before = 1;
    }
    if !scene.paused.is_zero() {
        let until = Duration::from_millis(start.saturating_sub(millis(SystemTime::now())?));
        tokio::time::sleep(until).await;
        redis.signal("-STOP")?;
        tokio::time::sleep(scene.paused).await;
        redis.signal("-CONT")?;
    }
    let read = tokio::task::spawn_blocking(move || -> Result<Vec<(u64, bool)>, std::io::Error> {
        let mut ends = Vec::new();
        for mut process in processes {
            let output = process
                .stdout
                .take()
                .ok_or_else(|| std::io::Error::other("no output"))?;
            for line in BufReader::new(output).lines() {
                let line = line?;
                let end = line.split_once(' ');
                let end = end.and_then(|(at, served)| Some((at.parse().ok()?, served == "true")));
                ends.extend(end);
            }
            process.wait()?;
        }
        Ok(ends)
    });
    let ends = read.await??;
    // The ends of subscriptions are sent behind the answer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let failed = ends.iter().filter(|(_, served)| !served).count();
    let first = ends.iter().map(|(at, _)| *at).min().unwrap_or_default();
    let last = ends.iter().map(|(at, _)| *at).max().unwrap_or_default();
    println!(
        "| {} | {} ({}) | {} | {failed} | {}, {} | {:.1} |",
        scene.name,
        ends.len(),
        scene.processes,
        officernd.token_requests() - before,
        first.saturating_sub(start),
        last - first,
        redis.commands()? as f64 / ends.len() as f64,
    );
    let all_failed = failed == ends.len();
    match if scene.fails { all_failed } else { failed == 0 } {
        true => Ok(()),
        false => Err(format!("{}: {failed} failed", scene.name).into()),
    }
}

/// A process with its share of the pods, which start at the given instant.
async fn process(line: &str) -> Result<(), BoxError> {
    let words: Vec<&str> = line.split(' ').collect();
    let [redis, id, secret, url, pods, start, minute, five] = words[..] else {
        return Err("eight words".into());
    };
    let credentials = ClientCredentials::new(id, secret)
        .scope("officernd.api.read")
        .token_url(url);
    let minute = Duration::from_millis(minute.parse()?);
    let requests = if five == "1" { 5 } else { 1 };
    let redis = redis.parse()?;
    let pods = (0..pods.parse()?).map(|_| pod(&credentials, redis, requests, minute));
    let pods: Vec<TokenCache> = pods.collect::<Result<_, _>>()?;
    let start: u64 = start.parse()?;
    let now = millis(SystemTime::now())?;
    if now > start {
        eprintln!(
            "a process was ready {} ms late: no cold start at one instant",
            now - start
        );
    }
    tokio::time::sleep(Duration::from_millis(start.saturating_sub(now))).await;
    let asked = pods.iter().map(|pod| {
        let pod = pod.clone();
        tokio::spawn(async move { (pod.token().await.is_ok(), SystemTime::now()) })
    });
    let asked: Vec<_> = asked.collect();
    let mut lines = String::new();
    for asked in asked {
        let (served, at) = asked.await?;
        lines += &format!("{} {served}\n", millis(at)?);
    }
    // The others still wait for theirs: this process goes on for a while.
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::io::stdout().write_all(lines.as_bytes())?;
    Ok(())
}

/// A cache with a provider, a client, a connection and an allowance of its own.
fn pod(
    credentials: &ClientCredentials,
    redis: u16,
    requests: u32,
    minute: Duration,
) -> Result<TokenCache, BoxError> {
    let store = RedisStore::new(&format!("redis://127.0.0.1:{redis}"))?;
    let provider = SharedTokenProvider::new(HttpTokenProvider::new(credentials.clone())?, store);
    let layer = OfficeRndAuthLayer::builder(provider)
        .allowance(Allowance::new(requests, minute))
        .build()?;
    Ok(layer.cache().clone())
}

fn millis(at: SystemTime) -> Result<u64, BoxError> {
    Ok(u64::try_from(at.duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// A `redis-server` on a free port that keeps nothing on disk.
struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    fn start() -> Result<Self, BoxError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("apt-get install redis-server ({error})"))?;
        let redis = Self { port, process };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(redis);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("redis-server does not listen".into())
    }

    fn signal(&self, signal: &str) -> Result<(), BoxError> {
        let process = self.process.id().to_string();
        Command::new("kill").args([signal, &process]).status()?;
        Ok(())
    }

    /// How many commands the pods have sent, without what scripts call.
    fn commands(&self) -> Result<u64, BoxError> {
        const COUNTED: [&str; 8] = [
            "hello",
            "client|setinfo",
            "select",
            "evalsha",
            "eval",
            "subscribe",
            "unsubscribe",
            "auth",
        ];
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"INFO commandstats\r\nQUIT\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let calls = text.lines().filter_map(|line| {
            let (name, values) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = values.strip_prefix("calls=")?.split(',').next()?;
            let calls: u64 = calls.parse().ok()?;
            COUNTED.contains(&name).then_some(calls)
        });
        Ok(calls.sum())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
