//! What the gateway is doing, kept for the page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use officernd_auth::config::{AllowanceSettings, Settings};
use officernd_auth::{AccessToken, Allowance, Error, FetchContext, TokenProvider, TokenStatus};
use serde::Serialize;

/// The timeline of requests, in seconds.
const SECONDS: usize = 120;
const MOST_REFRESHES: usize = 40;

pub(crate) struct Dashboard {
    born: Instant,
    allowance: AllowanceSettings,
    in_flight: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// By second, newest last: answered below 400, below 500, and the rest.
    requests: VecDeque<(u64, [u32; 3])>,
    total: u64,
    refreshes: VecDeque<Refresh>,
    last_error: Option<Mishap>,
    /// How long the newest token lives, in seconds.
    life: f64,
}

#[derive(Clone, Serialize)]
struct Refresh {
    /// Milliseconds since 1970, for the page.
    at: u64,
    /// When the allowance was spent on it.
    #[serde(skip)]
    spent: Duration,
    cause: &'static str,
    outcome: &'static str,
    ms: u64,
}

#[derive(Clone, Serialize)]
struct Mishap {
    at: u64,
    what: String,
}

#[derive(Serialize)]
pub(crate) struct Snapshot {
    now: u64,
    uptime: u64,
    status: TokenStatus,
    ready: bool,
    life: f64,
    used: usize,
    allowed: u32,
    per: f64,
    frees_in: Option<f64>,
    in_flight: u64,
    total: u64,
    requests: Vec<[u32; 3]>,
    refreshes: Vec<Refresh>,
    last_error: Option<Mishap>,
}

impl Dashboard {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            born: Instant::now(),
            allowance: settings.allowance.unwrap_or_default(),
            in_flight: AtomicU64::new(0),
            record: Mutex::default(),
        }
    }

    pub(crate) fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let mut record = self.lock();
        // Read under the lock, so that the seconds are in order.
        let second = self.born.elapsed().as_secs();
        record.total += 1;
        if record.requests.back().is_none_or(|last| last.0 != second) {
            record.requests.push_back((second, [0; 3]));
        }
        if record.requests.len() > SECONDS {
            record.requests.pop_front();
        }
        if let Some((_, [good, client, server])) = record.requests.back_mut() {
            match status.as_u16() {
                ..400 => *good += 1,
                400..500 => *client += 1,
                _ => *server += 1,
            }
        }
    }

    pub(crate) fn failed(&self, what: &str) {
        let what = what.to_owned();
        self.lock().last_error = Some(Mishap { at: now(), what });
    }

    fn refreshed(&self, cause: &'static str, outcome: &'static str, took: Duration) {
        let mut record = self.lock();
        record.refreshes.push_back(Refresh {
            at: now(),
            spent: self.born.elapsed().saturating_sub(took),
            cause,
            outcome,
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        if record.refreshes.len() > MOST_REFRESHES {
            record.refreshes.pop_front();
        }
    }

    pub(crate) fn snapshot(&self, status: TokenStatus) -> Snapshot {
        let record = self.lock();
        let elapsed = self.born.elapsed();
        let per = self.allowance.per;
        let frees = record
            .refreshes
            .iter()
            .map(|refresh| refresh.spent.saturating_add(per))
            .filter(|&frees| frees > elapsed);
        let frees_in = frees.clone().next().map(|at| (at - elapsed).as_secs_f64());
        let used = frees.count();
        let second = elapsed.as_secs();
        let mut requests = vec![[0; 3]; SECONDS];
        for (at, counts) in &record.requests {
            let ago = usize::try_from(second - at).unwrap_or(usize::MAX);
            if let Some(place) = requests.iter_mut().rev().nth(ago) {
                *place = *counts;
            }
        }
        Snapshot {
            now: now(),
            uptime: second,
            ready: status.has_token(),
            life: record.life,
            used,
            allowed: self.allowance.requests,
            per: per.as_secs_f64(),
            frees_in,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            total: record.total,
            requests,
            refreshes: record.refreshes.iter().rev().cloned().collect(),
            last_error: record.last_error.clone(),
            status,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A request until its answer's head is there, or its caller leaves.
pub(crate) struct InFlight<'a>(&'a Dashboard);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A provider in front of a provider: notes each fetch.
pub(crate) struct Watched<P> {
    provider: P,
    board: Arc<Dashboard>,
}

impl<P> Watched<P> {
    pub(crate) fn new(provider: P, board: Arc<Dashboard>) -> Self {
        Self { provider, board }
    }
}

/// A fetch that is dropped has met its timeout.
struct Fetch<'a> {
    board: &'a Dashboard,
    cause: &'static str,
    started: Instant,
    outcome: &'static str,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        if self.outcome == "timeout" {
            self.board.failed("token refresh: no answer in time");
        }
        let took = self.started.elapsed();
        self.board.refreshed(self.cause, self.outcome, took);
    }
}

impl<P: TokenProvider> TokenProvider for Watched<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let mut fetch = Fetch {
            board: &self.board,
            cause: cx.cause().as_str(),
            started: Instant::now(),
            outcome: "timeout",
        };
        let result = self.provider.fetch(cx).await;
        fetch.outcome = match &result {
            Ok(token) => {
                self.board.lock().life = token.expires_in().as_secs_f64();
                "ok"
            }
            Err(error) => {
                self.board.failed(&format!("token refresh: {error}"));
                error.kind().as_str()
            }
        };
        result
    }

    fn allowance(&self) -> Option<Allowance> {
        self.provider.allowance()
    }

    fn spends_allowance(&self) -> bool {
        self.provider.spends_allowance()
    }
}
