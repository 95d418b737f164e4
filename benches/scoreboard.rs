//! What do outages, revocations, forbidden paths, cold starts and broken neighbors cost?
//!
//! ```text
//! cargo bench -p benches --bench scoreboard             # prints the table of docs/scoreboard.md
//! cargo bench -p benches --bench scoreboard -- --write  # and puts it there
//! ```
//!
//! Time is simulated, and chance comes from seeds. All contenders meet the same
//! token endpoint: it takes 300 ms, its tokens live for an hour, and it grants
//! five requests in any 60 s, of which refused ones are some.

#![expect(clippy::disallowed_methods, reason = "simulated time")]

#[allow(dead_code, reason = "no bench needs all of it")]
mod common;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Effort, has_arg, say};
use http::{Request, Response, StatusCode};
use officernd_auth::{AccessToken, Error, ErrorKind, OfficeRndAuthLayer, RateLimit, provider_fn};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

const LIFE: Duration = Duration::from_secs(3_600);
const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const LATENCY: Duration = Duration::from_millis(300);
const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scoreboard.md");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// A token until it expires; one request fetches the next, the others wait.
    Lazy,
    /// The same, and a 401 to the token ends its life.
    OnEvery401,
    Ours,
}

/// The token endpoint and the API.
#[derive(Clone)]
struct World(Arc<Mutex<Facts>>);

struct Facts {
    start: Instant,
    down: bool,
    arrivals: VecDeque<Instant>,
    requests: u64,
    /// When the nth token expires.
    issued: Vec<Instant>,
    /// How long the API takes a token, whatever its `expires_in` says.
    dies_after: Duration,
    /// So many tokens are revoked.
    revoked: usize,
}

impl World {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Facts {
            start: Instant::now(),
            down: false,
            arrivals: VecDeque::new(),
            requests: 0,
            issued: Vec::new(),
            dies_after: LIFE,
            revoked: 0,
        })))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self) -> Duration {
        self.facts().start.elapsed()
    }

    /// A token, and how long it lives.
    async fn fetch(&self, broken: bool) -> Result<String, ErrorKind> {
        let asked = Instant::now();
        let answer = {
            let mut facts = self.facts();
            facts.requests += 1;
            facts.arrivals.retain(|at| asked - *at < MINUTE);
            facts.arrivals.push_back(asked);
            if facts.down {
                Err(ErrorKind::Transport)
            } else if facts.arrivals.len() > 5 {
                Err(ErrorKind::RateLimited)
            } else if broken {
                Err(ErrorKind::InvalidClient)
            } else {
                facts.issued.push(asked + LIFE);
                Ok(format!("t-{}", facts.issued.len()))
            }
        };
        sleep(LATENCY).await;
        answer
    }

    /// What the API answers.
    fn answer(&self, request: &Request<()>) -> StatusCode {
        let facts = self.facts();
        let header = request.headers().get("authorization");
        let number = header
            .and_then(|header| header.to_str().ok()?.rsplit('-').next()?.parse().ok())
            .unwrap_or(0_usize);
        let expires = facts.issued.get(number.wrapping_sub(1));
        let dies_early = LIFE - facts.dies_after;
        let good = expires.is_some_and(|expires| Instant::now() + dies_early < *expires)
            && number > facts.revoked
            && !request.uri().path().ends_with("forbidden");
        match good {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        }
    }
}

type Client = BoxCloneService<Request<()>, Response<()>, BoxError>;

impl Keeper {
    fn client(
        self,
        world: &World,
        broken: bool,
        rate_limit: &RateLimit,
    ) -> Result<Client, BoxError> {
        self.client_with(world, broken, rate_limit, false)
    }

    fn client_with(
        self,
        world: &World,
        broken: bool,
        rate_limit: &RateLimit,
        replay: bool,
    ) -> Result<Client, BoxError> {
        let api = world.clone();
        let api = service_fn(move |request: Request<()>| {
            let mut response = Response::new(());
            *response.status_mut() = api.answer(&request);
            ready(Ok::<_, Infallible>(response))
        });
        let world = world.clone();
        if self == Self::Ours {
            let provider = provider_fn(move || {
                let world = world.clone();
                async move {
                    match world.fetch(broken).await {
                        Ok(token) => AccessToken::bearer(token, LIFE),
                        Err(kind) => Err(Error::new(kind, "no token")),
                    }
                }
            });
            let layer = OfficeRndAuthLayer::builder(provider)
                .rate_limit(rate_limit.clone())
                .build()?;
            return Ok(match replay {
                true => BoxCloneService::new(layer.with_retry().layer(api)),
                false => BoxCloneService::new(layer.layer(api)),
            });
        }
        let kept: Arc<tokio::sync::Mutex<Option<(String, Instant)>>> = Arc::default();
        Ok(BoxCloneService::new(service_fn(
            move |mut request: Request<()>| {
                let (world, kept, api) = (world.clone(), Arc::clone(&kept), api.clone());
                async move {
                    let token = {
                        let mut kept = kept.lock().await;
                        match &*kept {
                            Some((token, expires)) if Instant::now() < *expires => token.clone(),
                            _ => {
                                let expires = Instant::now() + LIFE;
                                let fetched = world.fetch(broken).await;
                                let token = fetched.map_err(|kind| format!("{kind:?}"))?;
                                *kept = Some((token.clone(), expires));
                                token
                            }
                        }
                    };
                    let value = format!("Bearer {token}").parse()?;
                    request.headers_mut().insert("authorization", value);
                    let response = api.oneshot(request).await?;
                    if self == Self::OnEvery401 && response.status() == StatusCode::UNAUTHORIZED {
                        let mut kept = kept.lock().await;
                        // Unless another request has replaced it.
                        kept.take_if(|(current, _)| *current == token);
                    }
                    Ok(response)
                }
            },
        )))
    }
}

/// A rate limit of a process of its own.
fn own() -> RateLimit {
    RateLimit::new(5, MINUTE)
}

/// Whether a request was answered with success.
async fn succeeds(client: &mut Client, path: &'static str) -> bool {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static(path);
    let response = match client.ready().await {
        Ok(client) => client.call(request).await,
        Err(error) => Err(error),
    };
    response.is_ok_and(|response| response.status() == StatusCode::OK)
}

const GOOD: &str = "https://app.officernd.com/api/v2/organizations/acme/locations";
const FORBIDDEN: &str = "https://app.officernd.com/api/v2/organizations/acme/forbidden";

/// Whether no request fails during an outage that begins so long after the
/// first token. A request every two seconds.
async fn survives(keeper: Keeper, begins: Duration, lasts: Duration) -> Result<bool, BoxError> {
    let world = World::new();
    let mut client = keeper.client(&world, false, &own())?;
    while world.time() < begins + lasts + 2 * MINUTE {
        let time = world.time();
        world.facts().down = begins <= time && time < begins + lasts;
        if !succeeds(&mut client, GOOD).await {
            return Ok(false);
        }
        sleep(Duration::from_secs(2)).await;
    }
    Ok(true)
}

/// The longest outage that no request notices, whenever it begins.
async fn outage(keeper: Keeper, effort: Effort) -> Result<Duration, BoxError> {
    const STEP: Duration = Duration::from_secs(15);
    let mut longest = 20 * MINUTE;
    for seed in 0..effort.pick(50, 2) {
        // The first seed at all moments, the others at those around a refresh.
        let (from, to) = match seed {
            0 => (MINUTE, LIFE + 5 * MINUTE),
            _ => (39 * MINUTE, 46 * MINUTE),
        };
        let mut begins = from;
        while begins < to {
            fastrand::seed(seed);
            while !longest.is_zero() && !survives(keeper, begins, longest).await? {
                longest -= STEP;
            }
            begins += effort.pick(STEP, 3 * MINUTE);
        }
    }
    Ok(longest)
}

/// A day of requests, one in five to a forbidden path or none; half an hour
/// after noon the token is revoked, or not. For how long good requests failed
/// after that, and the token requests of the day.
async fn day(keeper: Keeper, forbidden: bool, revoked: bool) -> Result<(Duration, u64), BoxError> {
    // The tokens of the lazy ones are then half an hour old.
    let revocation = 12 * HOUR + HOUR / 2;
    fastrand::seed(1);
    let world = World::new();
    let mut client = keeper.client(&world, false, &own())?;
    let (mut over, mut count) = (revocation, 0_u32);
    let mut revoke = revoked;
    while world.time() < 24 * HOUR {
        count += 1;
        if revoke && world.time() >= revocation {
            revoke = false;
            let mut facts = world.facts();
            facts.revoked = facts.issued.len();
        }
        if forbidden && count % 5 == 0 {
            succeeds(&mut client, FORBIDDEN).await;
        } else if !succeeds(&mut client, GOOD).await && world.time() > revocation {
            over = world.time();
        }
        // Ten requests a second for two minutes, one in three seconds else.
        let busy = revocation..revocation + 2 * MINUTE;
        let busy = busy.contains(&(world.time() + Duration::from_secs(3)));
        sleep(Duration::from_millis(if busy { 100 } else { 3_000 })).await;
    }
    let requests = world.facts().requests;
    Ok((over - revocation, requests))
}

/// Twelve hours of a request a second, with tokens that die after 15 min. The share of requests
/// that fail.
async fn early_deaths(keeper: Keeper, replay: bool) -> Result<f64, BoxError> {
    fastrand::seed(1);
    let world = World::new();
    world.facts().dies_after = 15 * MINUTE;
    let mut client = keeper.client_with(&world, false, &own(), replay)?;
    let (mut failed, mut sent) = (0_u32, 0_u32);
    while world.time() < 12 * HOUR {
        sent += 1;
        failed += u32::from(!succeeds(&mut client, GOOD).await);
        sleep(Duration::from_secs(1)).await;
    }
    Ok(f64::from(failed) / f64::from(sent))
}

/// So many processes start at once, each without a token, and send a request
/// every five seconds. When the last has had its first answer; `None` is not
/// within the limit.
async fn cold(
    keeper: Keeper,
    processes: u64,
    limit: Duration,
) -> Result<Option<Duration>, BoxError> {
    fastrand::seed(processes);
    let world = World::new();
    let mut waiting = JoinSet::new();
    for _ in 0..processes {
        let mut client = keeper.client(&world, false, &own())?;
        let world = world.clone();
        waiting.spawn(async move {
            let mut first = None;
            while world.time() < limit {
                if succeeds(&mut client, GOOD).await {
                    // It goes on, since its next token is a request, too.
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

/// 100 healthy organizations beside so many whose secret was revoked, each with
/// a request every 30 s, the broken ones first. The share of healthy requests
/// that fail after the first two hours.
async fn neighbors(keeper: Keeper, broken: usize, hours: u32) -> Result<f64, BoxError> {
    fastrand::seed(1);
    let world = World::new();
    let rate_limit = own();
    let client = |broken| keeper.client(&world, broken, &rate_limit);
    let broken: Vec<Client> = (0..broken)
        .map(|_| client(true))
        .collect::<Result<_, _>>()?;
    let healthy: Vec<Client> = (0..100).map(|_| client(false)).collect::<Result<_, _>>()?;
    let start = Instant::now();
    let (mut failed, mut sent) = (0_u32, 0_u32);
    let mut next = start;
    while start.elapsed() < hours * HOUR {
        let counts = start.elapsed() >= 2 * HOUR;
        for client in &broken {
            let mut client = client.clone();
            tokio::spawn(async move { succeeds(&mut client, GOOD).await });
        }
        let mut calls = JoinSet::new();
        for client in &healthy {
            let mut client = client.clone();
            calls.spawn(async move { succeeds(&mut client, GOOD).await });
        }
        while let Some(succeeded) = calls.join_next().await {
            sent += u32::from(counts);
            failed += u32::from(counts && !succeeded?);
        }
        next += Duration::from_secs(30);
        sleep_until(next.max(Instant::now())).await;
    }
    Ok(f64::from(failed) / f64::from(sent))
}

/// One claim, and what each contender does about it.
struct Row {
    claim: &'static str,
    cells: Vec<String>,
    /// Whether ours is as docs/scoreboard.md says.
    holds: bool,
}

/// "14 min 45 s"
fn text(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..60.0 => format!("{seconds:.0} s"),
        _ => {
            let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
            match seconds {
                0 => format!("{minutes} min"),
                _ => format!("{minutes} min {seconds} s"),
            }
        }
    }
}

async fn rows(effort: Effort) -> Result<Vec<Row>, BoxError> {
    let all = [Keeper::Lazy, Keeper::OnEvery401, Keeper::Ours];
    // A test checks what is said of ours, which comes last.
    let keepers: &[Keeper] = effort.pick(&all, &[Keeper::Ours]);
    let mut rows = Vec::new();
    let mut row = |claim, cells: Vec<String>, holds| {
        rows.push(Row {
            claim,
            cells,
            holds,
        });
    };

    let (mut cells, mut ours) = (Vec::new(), Duration::ZERO);
    for &keeper in keepers {
        ours = outage(keeper, effort).await?;
        cells.push(text(ours));
    }
    let claim = "outage of the token endpoint without a failed request, at the worst moment";
    row(claim, cells, ours >= effort.pick(14, 13) * MINUTE);

    let claims = [
        "failed requests after a revocation end after",
        "the same, one request in five to a forbidden path",
    ];
    for (claim, forbidden) in claims.into_iter().zip([false, true]) {
        let (mut cells, mut ours) = (Vec::new(), Duration::ZERO);
        for &keeper in keepers {
            ours = day(keeper, forbidden, true).await?.0;
            let today = ours < 11 * HOUR;
            cells.push(if today {
                text(ours)
            } else {
                "not that day".to_owned()
            });
        }
        let bound = if forbidden { 10 * MINUTE } else { MINUTE / 6 };
        row(claim, cells, ours <= bound + Duration::from_secs(3));
    }

    let (mut cells, mut ours) = (Vec::new(), 0);
    for &keeper in keepers {
        ours = day(keeper, true, false).await?.1;
        cells.push(ours.to_string());
    }
    let claim = "token requests of a day, one request in five to a forbidden path";
    row(claim, cells, ours <= 300);

    for (claim, replay, bound) in [
        (
            "requests that fail, tokens die after 15 min instead of an hour",
            false,
            0.002,
        ),
        ("the same, with a replay after a 401", true, 0.0),
    ] {
        let (mut cells, mut ours) = (Vec::new(), 1.0);
        for &keeper in keepers {
            ours = early_deaths(keeper, replay).await?;
            cells.push(match (keeper, replay) {
                (Keeper::Ours, _) | (_, false) => format!("{:.1} %", ours * 100.0),
                _ => "no replay".to_owned(),
            });
        }
        row(claim, cells, ours <= bound);
    }

    let limit = effort.pick(6, 1) * HOUR;
    let claims = [
        ("the last of 10 cold processes is served after", 10, 5),
        ("the last of 20", 20, 20),
        ("the last of 50", 50, 60),
    ];
    for (claim, processes, minutes) in claims {
        let (mut cells, mut ours) = (Vec::new(), None);
        for &keeper in keepers {
            ours = cold(keeper, processes, limit).await?;
            let never = || format!("not within {} h", limit.as_secs() / 3600);
            cells.push(ours.map_or_else(never, text));
        }
        row(
            claim,
            cells,
            ours.is_some_and(|ours| ours <= minutes * MINUTE),
        );
    }

    let (mut cells, mut ours) = (Vec::new(), 1.0);
    for &keeper in keepers {
        ours = neighbors(keeper, 120, effort.pick(12, 3)).await?;
        cells.push(format!("{:.1} %", ours * 100.0));
    }
    let claim = "requests of 100 healthy organizations that fail beside 120 broken ones";
    row(claim, cells, ours == 0.0);
    Ok(rows)
}

fn main() -> Result<(), BoxError> {
    let effort = Effort::from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let rows = runtime.block_on(rows(effort))?;
    let mut table = match effort {
        Effort::Full => String::from(
            "| | lazy single flight | refresh on every 401 | `officernd-auth` |\n|---|--:|--:|--:|\n",
        ),
        Effort::Once => String::new(),
    };
    for row in &rows {
        writeln!(table, "| {} | {} |", row.claim, row.cells.join(" | "))?;
    }
    say(table.trim_end());
    let broken: Vec<_> = rows
        .iter()
        .filter(|row| !row.holds)
        .map(|row| row.claim)
        .collect();
    if !broken.is_empty() {
        return Err(format!("does not hold: {broken:?}").into());
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
            say("docs/scoreboard.md has other figures: --write puts these there");
        }
    }
    Ok(())
}
