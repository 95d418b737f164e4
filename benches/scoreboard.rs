//! What do outages, revocations, forbidden paths, early deaths, cold starts and broken organizations cost?
//!
//! ```text
//! cargo bench -p benches --bench scoreboard             # prints the table of docs/scoreboard.md
//! cargo bench -p benches --bench scoreboard -- --write  # and writes it there
//! ```
//!
//! Time is simulated, and random numbers come from seeds. docs/scoreboard.md describes the scenes.

#![expect(clippy::disallowed_methods, reason = "simulated time")]

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use common::world::{Cache, Client, FORBIDDEN, GOOD, HOUR, MINUTE, World, succeeds};
use common::{Effort, has_arg, say};
use officernd_auth::RateLimit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::BoxError;

const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scoreboard.md");

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let rows = runtime.block_on(rows(effort))?;
    let mut table = String::new();
    if effort == Effort::Full {
        table.push_str("| | lazy single flight | refresh on every 401 | `officernd-auth` |\n");
        table.push_str("|---|--:|--:|--:|\n");
    }
    for row in &rows {
        writeln!(table, "| {} | {} |", row.scene, row.cells.join(" | "))?;
    }
    say(table.trim_end());
    for row in &rows {
        let verdict = if row.met { "met" } else { "missed" };
        say(format!("goal {verdict}: {}: {}", row.scene, row.goal));
    }
    if rows.iter().any(|row| !row.met) {
        return Err("a goal is missed".into());
    }
    if effort == Effort::Full {
        let page = fs::read_to_string(DOC)?;
        let (head, rest) = page.split_once("| | ").ok_or("the page has no table")?;
        let (_, tail) = rest
            .split_once("\n\n")
            .ok_or("the page ends with the table")?;
        let written = format!("{head}{table}\n{tail}");
        if has_arg("--write") {
            fs::write(DOC, written)?;
        } else if written != page {
            say("docs/scoreboard.md has a different table; --write replaces it");
        }
    }
    Ok(())
}

/// One row of the table.
struct Row {
    scene: &'static str,
    cells: Vec<String>,
    goal: &'static str,
    met: bool,
}

impl Row {
    /// Measures all caches, ours last. `met` decides whether ours is within the goal.
    async fn measure<T>(
        scene: &'static str,
        caches: &[Cache],
        measure: impl AsyncFn(Cache) -> Result<T, BoxError>,
        show: impl Fn(&T) -> String,
        goal: &'static str,
        met: impl Fn(&T) -> bool,
    ) -> Result<Self, BoxError> {
        let mut row = Self {
            scene,
            cells: Vec::new(),
            goal,
            met: false,
        };
        for cache in caches {
            let measured = measure(*cache).await?;
            row.cells.push(show(&measured));
            row.met = met(&measured);
        }
        Ok(row)
    }
}

async fn rows(effort: Effort) -> Result<Vec<Row>, BoxError> {
    // As a test, it checks the goals, and those are ours.
    let all = [Cache::Lazy, Cache::OnEvery401, Cache::Ours];
    let caches: &[Cache] = effort.pick(&all, &[Cache::Ours]);
    let mut rows = Vec::new();

    rows.push(
        Row::measure(
            "longest outage of the token endpoint without a failed request",
            caches,
            async |cache| outage(cache, effort).await,
            text,
            "at least 14 min (13 min as a test)",
            |outage| *outage >= effort.pick(14, 13) * MINUTE,
        )
        .await?,
    );

    for (scene, forbidden, goal, most) in [
        (
            "requests fail after a revocation for",
            false,
            "at most 13 s",
            Duration::from_secs(13),
        ),
        (
            "requests fail after a revocation, if one path is forbidden, for",
            true,
            "at most 10 min 3 s",
            Duration::from_secs(603),
        ),
    ] {
        let show = |failing: &Duration| match *failing < 11 * HOUR {
            true => text(failing),
            false => "the rest of the day".to_owned(),
        };
        let measure = async |cache| Ok(day(cache, forbidden, true).await?.0);
        let met = |failing: &Duration| *failing <= most;
        rows.push(Row::measure(scene, caches, measure, show, goal, met).await?);
    }

    rows.push(
        Row::measure(
            "token requests in a day if one path is forbidden",
            caches,
            async |cache| Ok(day(cache, true, false).await?.1),
            u64::to_string,
            "at most 300",
            |requests| *requests <= 300,
        )
        .await?,
    );

    rows.push(
        Row::measure(
            "requests that fail if tokens become invalid after 15 min",
            caches,
            early_deaths,
            percent,
            "at most 0.2 %",
            |failed| *failed <= 0.002,
        )
        .await?,
    );
    let mut replayed = Row::measure(
        "requests that fail if tokens become invalid after 15 min, with `with_retry`",
        &[Cache::OursWithRetry],
        early_deaths,
        percent,
        "none",
        |failed| *failed == 0.0,
    )
    .await?;
    let missing = caches.iter().skip(1).map(|_| "-".to_owned());
    replayed.cells.splice(0..0, missing);
    rows.push(replayed);

    let limit = effort.pick(6, 1) * HOUR;
    for (scene, processes, goal, minutes) in [
        (
            "10 cold processes all have a token after",
            10,
            "at most 5 min",
            5,
        ),
        (
            "20 cold processes all have a token after",
            20,
            "at most 20 min",
            20,
        ),
        (
            "50 cold processes all have a token after",
            50,
            "at most 60 min",
            60,
        ),
    ] {
        let measure = async |cache| cold(cache, processes, limit).await;
        let never = || format!("more than {} h", limit.as_secs() / 3_600);
        let show = |last: &Option<Duration>| last.as_ref().map_or_else(never, text);
        let met = |last: &Option<Duration>| last.is_some_and(|last| last <= minutes * MINUTE);
        rows.push(Row::measure(scene, caches, measure, show, goal, met).await?);
    }

    rows.push(
        Row::measure(
            "failed requests of 100 healthy organizations in a process with 120 broken ones",
            caches,
            async |cache| broken_organizations(cache, effort.pick(12, 3)).await,
            percent,
            "none",
            |failed| *failed == 0.0,
        )
        .await?,
    );
    Ok(rows)
}

/// "14 min 45 s"
fn text(duration: &Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    match (minutes, seconds) {
        (0, ..10) => format!("{:.1} s", duration.as_secs_f64()),
        (0, _) => format!("{seconds} s"),
        (_, 0) => format!("{minutes} min"),
        _ => format!("{minutes} min {seconds} s"),
    }
}

fn percent(share: &f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Returns an OfficeRnD that follows its documentation.
fn world() -> World {
    World::new(Duration::from_millis(300), HOUR, 5)
}

/// Returns the rate limit of a new process.
fn rate_limit() -> RateLimit {
    RateLimit::new(5, MINUTE)
}

/// Returns the longest outage without a failed request, whenever it begins.
async fn outage(cache: Cache, effort: Effort) -> Result<Duration, BoxError> {
    const STEP: Duration = Duration::from_secs(15);
    let mut longest = 20 * MINUTE;
    for seed in 0..effort.pick(50, 2) {
        // The first seed covers the whole life of a token, the others the time around its refresh.
        let (from, to) = match seed {
            0 => (MINUTE, HOUR + 5 * MINUTE),
            _ => (39 * MINUTE, 46 * MINUTE),
        };
        let mut begins = from;
        while begins < to {
            fastrand::seed(seed);
            while !longest.is_zero() && !survives(cache, begins, longest).await? {
                longest -= STEP;
            }
            begins += effort.pick(STEP, 3 * MINUTE);
        }
    }
    Ok(longest)
}

/// Returns `true` if no request fails during an outage that begins this long after the first token.
async fn survives(cache: Cache, begins: Duration, lasts: Duration) -> Result<bool, BoxError> {
    let world = world();
    let client = cache.client(&world, &rate_limit(), false)?;
    while world.time() < begins + lasts + 2 * MINUTE {
        let time = world.time();
        world.facts().down = begins <= time && time < begins + lasts;
        if !succeeds(client.clone(), GOOD).await {
            return Ok(false);
        }
        sleep(Duration::from_secs(2)).await;
    }
    Ok(true)
}

/// Returns for how long good requests failed after the revocation, and the token requests of the day.
///
/// With `forbidden`, one request in five goes to a forbidden path; with `revoked`, the token is revoked at 12:30.
async fn day(cache: Cache, forbidden: bool, revoked: bool) -> Result<(Duration, u64), BoxError> {
    // A lazily fetched token is half an hour old then.
    let revocation = 12 * HOUR + HOUR / 2;
    fastrand::seed(1);
    let world = world();
    let client = cache.client(&world, &rate_limit(), false)?;
    let (mut last_failure, mut count) = (revocation, 0_u32);
    let mut revoke = revoked;
    while world.time() < 24 * HOUR {
        count += 1;
        if revoke && world.time() >= revocation {
            revoke = false;
            let mut facts = world.facts();
            facts.revoked = facts.issued.len();
        }
        if forbidden && count % 5 == 0 {
            succeeds(client.clone(), FORBIDDEN).await;
        } else if !succeeds(client.clone(), GOOD).await && world.time() > revocation {
            last_failure = world.time();
        }
        // Ten requests a second in the two minutes around the revocation.
        let busy = revocation..revocation + 2 * MINUTE;
        let busy = busy.contains(&(world.time() + Duration::from_secs(3)));
        sleep(Duration::from_millis(if busy { 100 } else { 3_000 })).await;
    }
    let requests = world.facts().token_requests;
    Ok((last_failure - revocation, requests))
}

/// Returns the share of requests that fail in 12 hours if the API refuses each token after 15 min.
async fn early_deaths(cache: Cache) -> Result<f64, BoxError> {
    fastrand::seed(1);
    let world = world();
    world.facts().dies_early = HOUR - 15 * MINUTE;
    let client = cache.client(&world, &rate_limit(), false)?;
    let (mut failed, mut sent) = (0_u32, 0_u32);
    while world.time() < 12 * HOUR {
        sent += 1;
        failed += u32::from(!succeeds(client.clone(), GOOD).await);
        sleep(Duration::from_secs(1)).await;
    }
    Ok(f64::from(failed) / f64::from(sent))
}

/// Returns when the last of the processes had its first success; `None` if that is after `limit`.
async fn cold(cache: Cache, processes: u64, limit: Duration) -> Result<Option<Duration>, BoxError> {
    fastrand::seed(processes);
    let world = world();
    let mut waiting = JoinSet::new();
    for _ in 0..processes {
        let client = cache.client(&world, &rate_limit(), false)?;
        let world = world.clone();
        waiting.spawn(async move {
            let mut first = None;
            // Continues after its first success, since its refreshes count in the window too.
            while world.time() < limit {
                if succeeds(client.clone(), GOOD).await {
                    first.get_or_insert_with(|| world.time());
                }
                sleep(Duration::from_secs(5)).await;
            }
            first
        });
    }
    let mut last = Some(Duration::ZERO);
    while let Some(first) = waiting.join_next().await {
        let first = first?;
        last = last.and_then(|last| Some(last.max(first?)));
    }
    Ok(last)
}

/// Returns the share of requests of 100 healthy organizations that fail after the first two hours, beside 120 whose
/// secret was revoked. All share a rate limit.
async fn broken_organizations(cache: Cache, hours: u32) -> Result<f64, BoxError> {
    fastrand::seed(1);
    let world = world();
    let rate_limit = rate_limit();
    let client = |broken| cache.client(&world, &rate_limit, broken);
    let broken: Vec<Client> = (0..120).map(|_| client(true)).collect::<Result<_, _>>()?;
    let healthy: Vec<Client> = (0..100).map(|_| client(false)).collect::<Result<_, _>>()?;
    let start = Instant::now();
    let (mut failed, mut sent) = (0_u32, 0_u32);
    let mut next = start;
    while start.elapsed() < hours * HOUR {
        let counts = start.elapsed() >= 2 * HOUR;
        for client in &broken {
            tokio::spawn(succeeds(client.clone(), GOOD));
        }
        let calls: JoinSet<bool> = healthy
            .iter()
            .map(|client| succeeds(client.clone(), GOOD))
            .collect();
        for succeeded in calls.join_all().await {
            sent += u32::from(counts);
            failed += u32::from(counts && !succeeded);
        }
        next += Duration::from_secs(30);
        sleep_until(next.max(Instant::now())).await;
    }
    Ok(f64::from(failed) / f64::from(sent))
}
