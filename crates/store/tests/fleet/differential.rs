//! Random operations have the same answers from `MemoryStore`, in Rust, and from Redis, in Lua.

use std::time::{Duration, Instant};

use officernd_auth::testing::ManualClock;
use officernd_auth_store::testing::MemoryStore;
use officernd_auth_store::{
    Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, RedisStore, TokenStore,
};

use crate::pods::now;
use testkit::redis::Server;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(30);
/// Longer than `SHORT`, and shorter than twice that.
const PAUSE: Duration = Duration::from_millis(250);
/// The unit of stores.
const MS: Duration = Duration::from_millis(1);

/// The same operations, by the same holders, on both stores.
struct Case {
    random: fastrand::Rng,
    redis: RedisStore,
    model: MemoryStore,
    clock: ManualClock,
    /// The time of the model's clock.
    now: Instant,
    keys: [Name; 2],
    window: Name,
    holders: [Name; 4],
    /// The holder that was granted the fetch last, and the entry that was seen last.
    granted: usize,
    seen: Option<Name>,
    /// The limits of all claims; `None` if each claim has its own.
    limits: Option<Limits>,
    /// For each end by the clock of Redis, its earliest and its latest time.
    ends: Vec<(Instant, Instant)>,
    /// The duration of the slowest operation. Waits may differ by that much.
    slowest: Duration,
    log: Vec<String>,
}

fn pick<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

fn limits(random: &mut fastrand::Rng) -> Limits {
    let requests = pick(random, &[None, Some(0), Some(1), Some(1), Some(2), Some(3)]);
    let (lease, per) = (pick(random, &[SHORT, LONG]), pick(random, &[SHORT, LONG]));
    Limits::new(lease, requests, per)
}

impl Case {
    fn new(seed: u64, mixed: bool, redis: RedisStore) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let name = |_| Name::random().unwrap();
        let clock = ManualClock::new();
        Self {
            redis,
            model: MemoryStore::new().clock(clock.clone()),
            clock,
            now: now(),
            keys: [0; 2].map(name),
            window: Name::random().unwrap(),
            holders: [0; 4].map(name),
            granted: 0,
            seen: None,
            limits: (!mixed).then(|| limits(&mut random)),
            random,
            ends: Vec::new(),
            slowest: Duration::ZERO,
            log: Vec::new(),
        }
    }

    /// Returns an error with the operations and the answers that differ; `None` if the machine was too slow to
    /// tell.
    async fn run(mut self) -> Option<Result<(), String>> {
        for _ in 0..30 {
            if self.random.u8(..4) == 0 {
                self.log.push("pause".to_owned());
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let before = now();
            self.clock.advance(before - self.now);
            self.now = before;
            let answers = match self.random.bool() {
                true => self.claim().await,
                false => self.finish().await,
            };
            let after = now();
            self.slowest = self.slowest.max(after - before);
            // The operation may have run twice, or something may have ended during it.
            let ended = |(from, to): &(Instant, Instant)| *from <= after + MS && before <= *to + MS;
            if after - before > SHORT || self.ends.iter().any(ended) {
                return None;
            }
            for life in [SHORT, 2 * SHORT, LONG, LONG + SHORT, 2 * LONG] {
                self.ends.push((before + life, after + life));
            }
            let (ours, redis) = match answers {
                Ok(answers) => answers,
                Err(error) if error.to_string().contains("in time") => return None,
                Err(error) => {
                    let log = self.log.join("\n");
                    return Some(Err(format!("{log}\n{error:?}")));
                }
            };
            if !alike(&ours, &redis, self.slowest + 2 * MS) {
                let log = self.log.join("\n");
                return Some(Err(format!("{log}\nmodel {ours:?}\nRedis {redis:?}")));
            }
        }
        Some(Ok(()))
    }

    async fn claim(&mut self) -> Result<(Answer, Answer), officernd_auth::Error> {
        let random = &mut self.random;
        let [key, holder] = [2, 4].map(|count| random.usize(..count));
        // Three times in four, as a process would.
        let seen = self.seen.clone().filter(|_| random.u8(..4) > 0);
        let limits = self.limits.unwrap_or_else(|| limits(random));
        let (name, window) = (self.keys[key].clone(), self.window.clone());
        let mut claim = Claim::new(name, window, self.holders[holder].clone(), limits);
        claim.seen = seen;
        claim.may_fetch = random.u8(..8) > 0;
        self.log.push(format!(
            "claim {key} by {holder}, seen {:?}, may fetch {}, {limits:?}",
            claim.seen, claim.may_fetch
        ));
        let ours = short(self.model.claim(&claim).await?);
        let redis = short(self.redis.claim(&claim).await?);
        match &ours {
            Claimed::Entry(entry) => self.seen = Some(entry.id.clone()),
            Claimed::Granted => self.granted = holder,
            _ => {}
        }
        Ok((Answer::Claimed(ours), Answer::Claimed(redis)))
    }

    async fn finish(&mut self) -> Result<(Answer, Answer), officernd_auth::Error> {
        let random = &mut self.random;
        let (key, other) = (random.usize(..2), random.usize(..4));
        let holder = pick(random, &[self.granted, self.granted, other]);
        let frees_after = pick(random, &[Duration::ZERO, SHORT, LONG]);
        let life = pick(random, &[SHORT, LONG]);
        let size = pick(random, &[0, 1, 100, MAX_ENTRY_SIZE, MAX_ENTRY_SIZE + 1]);
        let (name, window) = (self.keys[key].clone(), self.window.clone());
        let mut finish = Finish::new(name, window, self.holders[holder].clone(), frees_after);
        if random.u8(..4) > 0 {
            finish = finish.entry(vec![random.u8(..); size], life);
        }
        let saved = finish.entry.is_some();
        self.log.push(format!(
            "finish {key} by {holder}, frees after {frees_after:?}, saves {size} bytes for {life:?}: {saved}"
        ));
        let ours = self.model.finish(&finish).await?;
        Ok((
            Answer::Finished(ours),
            Answer::Finished(self.redis.finish(&finish).await?),
        ))
    }
}

/// Replaces the bytes of an entry by their length and their first byte.
fn short(mut claimed: Claimed) -> Claimed {
    if let Claimed::Entry(entry) = &mut claimed {
        let bytes = (entry.sealed.len(), entry.sealed.first());
        entry.sealed = format!("{bytes:?}").into_bytes();
    }
    claimed
}

#[derive(Debug)]
enum Answer {
    Claimed(Claimed),
    Finished(bool),
}

fn alike(ours: &Answer, redis: &Answer, tolerance: Duration) -> bool {
    use Answer::{Claimed as C, Finished};
    use Claimed::{Entry, Granted, Leased, RateLimited};

    let near = |a: &Duration, b: &Duration| a.abs_diff(*b) <= tolerance;
    match (ours, redis) {
        (C(Entry(a)), C(Entry(b))) => {
            a.id == b.id && a.sealed == b.sealed && near(&a.expires_in, &b.expires_in)
        }
        (C(Granted), C(Granted)) => true,
        (C(Leased(a)), C(Leased(b))) => near(a, b),
        // Zero means that a slot is free, but the caller may not fetch.
        (C(RateLimited(a)), C(RateLimited(b))) => a.is_zero() == b.is_zero() && near(a, b),
        (Finished(a), Finished(b)) => a == b,
        _ => false,
    }
}

#[tokio::test]
async fn rust_and_lua_answer_alike() {
    let wanted: usize =
        std::env::var("OFFICERND_FLEET_CASES").map_or(40, |count| count.parse().unwrap());
    let server = Server::start();
    let redis = RedisStore::new(&server.url()).unwrap();
    for mixed in [false, true] {
        let (mut counted, mut tried) = (0, 0);
        let mut differing = Vec::new();
        // Cases on a slow machine do not count, so try more of them.
        while counted < wanted && tried < 10 * wanted {
            let mut running = tokio::task::JoinSet::new();
            for _ in 0..16.min(wanted - counted) {
                tried += 1;
                let (seed, redis) = (fastrand::u64(..), redis.clone());
                running.spawn(async move { (seed, Case::new(seed, mixed, redis).run().await) });
            }
            while let Some(done) = running.join_next().await {
                let (seed, result) = done.unwrap();
                counted += usize::from(result.is_some());
                if let Some(Err(log)) = result {
                    differing.push(format!("seed {seed}:\n{log}"));
                }
            }
        }
        println!("explored: {counted} of {tried} cases counted, mixed limits: {mixed}");
        assert!(
            differing.is_empty(),
            "{} of {counted} cases differ, mixed limits: {mixed}; {}",
            differing.len(),
            differing[0]
        );
        assert!(counted >= wanted / 4, "{counted} of {tried}");
    }
}
