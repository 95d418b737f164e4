//! Random schedules of a few nodes that share a store: in memory with the clock paused, and in a real Redis.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use officernd_auth::provider::{KeyMaterial, KeyedProvider};
use officernd_auth::{
    AccessToken, Error, ErrorKind, FetchContext, OfficeRndAuthLayer, RateLimit, TokenCache,
    TokenProvider,
};
use officernd_auth_store::SharedTokenProvider;
use officernd_auth_store::testing::MemoryStore;
use officernd_auth_store::{Claim, Claimed, Finish, Name, RedisStore, TokenStore};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::pods::{MINUTE, now};
use testkit::redis::Server;

/// The parameters of a schedule.
#[derive(Debug, Clone, Copy)]
struct Conditions {
    /// The longest latency to the store, in each direction.
    latency: Duration,
    /// The share of operations that fail, in percent: before or after they take effect.
    faults: u64,
    /// The longest pause between two steps.
    pause: Duration,
    steps: u32,
}

struct World {
    random: Mutex<fastrand::Rng>,
    conditions: Conditions,
    running: AtomicUsize,
    most_running: AtomicUsize,
    sent: Mutex<Vec<Instant>>,
}

impl World {
    fn pick(&self, below: u64) -> u64 {
        self.random.lock().unwrap().u64(..below)
    }

    async fn transfer(&self) -> Result<(), Error> {
        let most = self.conditions.latency.as_micros() as u64 + 1;
        sleep(Duration::from_micros(self.pick(most))).await;
        if self.pick(100) < self.conditions.faults {
            return Err(Error::new(ErrorKind::Store, "scheduled"));
        }
        Ok(())
    }
}

/// The connection of one node to the store, until the node is killed.
struct Connection<S> {
    world: Arc<World>,
    store: S,
    alive: watch::Receiver<bool>,
}

impl<S: TokenStore> Connection<S> {
    async fn there_and_back<T>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let work = async {
            self.world.transfer().await?;
            let done = work.await?;
            self.world.transfer().await?;
            Ok(done)
        };
        tokio::select! {
            biased;
            () = gone(&self.alive) => std::future::pending().await,
            done = work => done,
        }
    }
}

impl<S: TokenStore> TokenStore for Connection<S> {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        self.there_and_back(self.store.claim(claim)).await
    }

    async fn finish(&self, finish: &Finish) -> Result<bool, Error> {
        self.there_and_back(self.store.finish(finish)).await
    }
}

/// The token endpoint for one node. It succeeds, fails, and hangs at random.
struct Endpoint {
    world: Arc<World>,
    secret: String,
    alive: watch::Receiver<bool>,
}

struct Running<'a>(&'a World);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Endpoint {
    async fn answer(&self) -> Result<AccessToken, Error> {
        let world = &*self.world;
        let running = world.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(world);
        world.most_running.fetch_max(running, Ordering::SeqCst);
        let number = {
            let mut sent = world.sent.lock().unwrap();
            sent.push(now());
            sent.len()
        };
        let pause = world.conditions.pause;
        match world.pick(10) {
            0 => std::future::pending().await,
            1 => Err(Error::new(ErrorKind::Transport, "down")),
            _ => {
                sleep(pause.mul_f64(world.pick(100) as f64 / 100.0)).await;
                // Longer than the 3 s after which an operation fails.
                let life = Duration::from_secs(5 + world.pick(20));
                AccessToken::bearer(format!("token-{number}"), life)
            }
        }
    }
}

impl TokenProvider for Endpoint {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let _permit = cx.permit().await?;
        tokio::select! {
            biased;
            () = gone(&self.alive) => std::future::pending().await,
            answer = self.answer() => answer,
        }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}

/// Waits until the node is killed.
async fn gone(alive: &watch::Receiver<bool>) {
    let mut alive = alive.clone();
    // A node whose sender is dropped was not killed.
    if alive.wait_for(|alive| !alive).await.is_err() {
        std::future::pending().await
    }
}

impl KeyedProvider for Endpoint {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        let secret = &*self.secret;
        Ok(KeyMaterial::new("https://token.test/", "client", secret))
    }
}

struct Node {
    cache: TokenCache,
    alive: watch::Sender<bool>,
}

fn node<S: TokenStore + Clone>(world: &Arc<World>, store: &S, secret: &str) -> Node {
    let (alive, watched) = watch::channel(true);
    let endpoint = Endpoint {
        world: Arc::clone(world),
        secret: secret.to_owned(),
        alive: watched.clone(),
    };
    let connection = Connection {
        world: Arc::clone(world),
        store: store.clone(),
        alive: watched,
    };
    let layer = OfficeRndAuthLayer::builder(SharedTokenProvider::new(endpoint, connection))
        .fetch_timeout(Duration::from_secs(1))
        .acquire_timeout(Duration::from_secs(20))
        .rate_limit(RateLimit::new(5, MINUTE));
    let cache = layer.build().unwrap().cache().clone();
    Node { cache, alive }
}

async fn run<S: TokenStore + Clone>(store: S, conditions: Conditions, seed: u64) -> World {
    let world = Arc::new(World {
        random: Mutex::new(fastrand::Rng::with_seed(seed)),
        conditions,
        running: AtomicUsize::new(0),
        most_running: AtomicUsize::new(0),
        sent: Mutex::default(),
    });
    // Runs on the same server must not share a token.
    let secret = format!("secret {seed} {:?}", Name::random().unwrap());
    let count = 2 + world.pick(4);
    let mut nodes: Vec<Node> = (0..count).map(|_| node(&world, &store, &secret)).collect();
    let mut calls = Vec::new();
    for _ in 0..conditions.steps {
        let pause = conditions.pause.as_micros() as u64 + 1;
        sleep(Duration::from_micros(world.pick(pause))).await;
        let at = world.pick(count) as usize;
        let cache = nodes[at].cache.clone();
        match world.pick(8) {
            0..=3 => calls.push(tokio::spawn(async move { cache.token().await.map(drop) })),
            4 => calls.push(tokio::spawn(async move { cache.refresh().await.map(drop) })),
            5 | 6 => {
                if let Some(token) = cache.try_token() {
                    cache.reject(&token);
                }
            }
            _ => {
                nodes[at].alive.send_replace(false);
                nodes[at] = node(&world, &store, &secret);
            }
        }
    }
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            let expected = [
                ErrorKind::RateLimited,
                ErrorKind::Timeout,
                ErrorKind::Transport,
            ];
            assert!(expected.contains(&error.kind()), "seed {seed}: {error:?}");
        }
    }
    drop(nodes);
    while Arc::strong_count(&world) > 1 {
        sleep(Duration::from_millis(100)).await;
        if world.running.load(Ordering::SeqCst) == 0 {
            break;
        }
    }
    World {
        random: Mutex::new(fastrand::Rng::new()),
        conditions,
        running: AtomicUsize::new(0),
        most_running: AtomicUsize::new(world.most_running.load(Ordering::SeqCst)),
        sent: Mutex::new(world.sent.lock().unwrap().clone()),
    }
}

fn most_in_a_minute(sent: &[Instant]) -> usize {
    let within = |from: &Instant| {
        let in_window = sent
            .iter()
            .filter(|at| **at >= *from && **at < *from + MINUTE);
        in_window.count()
    };
    sent.iter().map(within).max().unwrap_or(0)
}

/// Returns the number of schedules. `./test long` sets more.
fn schedules() -> u64 {
    std::env::var("OFFICERND_FLEET_SCHEDULES").map_or(150, |count| count.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn no_two_nodes_fetch_under_one_lease_nor_more_than_five_a_minute() {
    let (count, mut requests) = (schedules(), 0);
    for seed in 0..count {
        let conditions = Conditions {
            latency: Duration::from_millis(seed % 4 * 60),
            faults: 0,
            pause: Duration::from_millis(900),
            steps: 60,
        };
        let world = run(MemoryStore::new(), conditions, seed).await;
        assert!(world.most_running.into_inner() <= 1, "seed {seed}");
        let sent = world.sent.into_inner().unwrap();
        assert!(most_in_a_minute(&sent) <= 5, "seed {seed}");
        requests += sent.len();
    }
    println!("explored: {count} schedules of two to five nodes, {requests} token requests");
    assert!(requests as u64 > 3 * count);
}

#[tokio::test(start_paused = true)]
async fn callers_never_see_the_error_of_a_store_that_fails_at_random() {
    for seed in 0..schedules().min(200) {
        let conditions = Conditions {
            latency: Duration::from_millis(300),
            faults: 1 + seed % 30,
            pause: Duration::from_millis(900),
            steps: 40,
        };
        // `run` checks every error.
        run(MemoryStore::new(), conditions, seed).await;
    }
}

#[tokio::test]
async fn no_two_nodes_fetch_under_one_lease_of_a_real_redis() {
    let server = Server::start();
    let url = server.url();
    let runs = (0..10).map(|seed| {
        let store = RedisStore::new(&url).unwrap();
        // Each run has a rate limit of its own.
        let store = store.key_prefix(&format!("officernd:{seed}:")).unwrap();
        tokio::spawn(async move {
            let conditions = Conditions {
                latency: Duration::from_millis(20),
                faults: 0,
                pause: Duration::from_millis(150),
                steps: 60,
            };
            (seed, run(store, conditions, seed).await)
        })
    });
    for run in runs.collect::<Vec<_>>() {
        let (seed, world) = run.await.unwrap();
        assert!(world.most_running.into_inner() <= 1, "seed {seed}");
        let sent = world.sent.into_inner().unwrap();
        assert!(most_in_a_minute(&sent) <= 5, "seed {seed}");
    }
}
