//! What the gateway is doing, kept for the page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use officernd_auth::{Settings, TokenStatus};
use serde::Serialize;

use crate::tokens::OrganizationState;

/// The timeline of requests, in seconds.
const TIMELINE_SECONDS: usize = 120;
const MAX_REFRESHES: usize = 40;

/// What the gateway is, as its page says at the top.
#[derive(Clone, Serialize)]
pub(crate) struct Identity {
    pub(crate) version: &'static str,
    pub(crate) upstream: String,
}

pub(crate) struct Dashboard {
    identity: Identity,
    started: Instant,
    /// Token requests, and in which time.
    pub(crate) rate_limit: (u32, Duration),
    in_flight: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// By second, newest last: answered below 400, below 500, and the rest.
    requests: VecDeque<(u64, [u32; 3])>,
    total: u64,
    refreshes: VecDeque<Refresh>,
    last_error: Option<LastError>,
    /// Seconds that the newest token lives from its arrival, by slug. As many
    /// as are configured.
    lifetimes: BTreeMap<String, f64>,
}

#[derive(Clone, Serialize)]
struct Refresh {
    /// Milliseconds since 1970, for the page.
    at: u64,
    /// When the token request began, since the gateway's start. `None` if no
    /// request was sent: the token came from the store.
    #[serde(skip)]
    sent: Option<Duration>,
    organization: String,
    cause: &'static str,
    outcome: &'static str,
    ms: u64,
}

#[derive(Clone, Serialize)]
struct LastError {
    at: u64,
    what: String,
}

#[derive(Serialize)]
struct Organization {
    slug: String,
    has_token: bool,
    lifetime: Option<f64>,
    store_problem: Option<String>,
    status: TokenStatus,
}

#[derive(Serialize)]
pub(crate) struct Snapshot {
    #[serde(flatten)]
    identity: Identity,
    leaving: bool,
    now: u64,
    uptime: u64,
    organizations: Vec<Organization>,
    used: usize,
    allowed: u32,
    per: f64,
    frees_in: Option<f64>,
    in_flight: u64,
    total: u64,
    requests: Vec<[u32; 3]>,
    refreshes: Vec<Refresh>,
    last_error: Option<LastError>,
}

/// One fetch of a token that has ended.
pub(crate) struct Fetched<'a> {
    pub(crate) organization: &'a str,
    pub(crate) cause: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) took: Duration,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) from_store: bool,
}

impl Dashboard {
    pub(crate) fn new(identity: Identity, settings: &Settings) -> Self {
        Self {
            identity,
            started: Instant::now(),
            rate_limit: (
                settings.rate_limit_requests.unwrap_or(5),
                settings.rate_limit_per.unwrap_or(Duration::from_secs(60)),
            ),
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
        let second = self.started.elapsed().as_secs();
        record.total += 1;
        if record.requests.back().is_none_or(|last| last.0 != second) {
            record.requests.push_back((second, [0; 3]));
        }
        if record.requests.len() > TIMELINE_SECONDS {
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
        self.lock().last_error = Some(LastError { at: now(), what });
    }

    pub(crate) fn fetched(&self, fetched: &Fetched<'_>) {
        let mut record = self.lock();
        let slug = fetched.organization.to_owned();
        if let Some(lifetime) = fetched.lifetime {
            let lifetime = lifetime.as_secs_f64();
            record.lifetimes.insert(slug.clone(), lifetime);
        }
        let begun = self.started.elapsed().saturating_sub(fetched.took);
        record.refreshes.push_back(Refresh {
            at: now(),
            sent: (!fetched.from_store).then_some(begun),
            organization: slug,
            cause: fetched.cause,
            outcome: match fetched.from_store {
                true => "from the store",
                false => fetched.outcome,
            },
            ms: u64::try_from(fetched.took.as_millis()).unwrap_or(u64::MAX),
        });
        if record.refreshes.len() > MAX_REFRESHES {
            record.refreshes.pop_front();
        }
    }

    pub(crate) fn snapshot(&self, states: Vec<OrganizationState>, leaving: bool) -> Snapshot {
        let record = self.lock();
        let elapsed = self.started.elapsed();
        let per = self.rate_limit.1;
        let frees = record
            .refreshes
            .iter()
            .filter_map(|refresh| Some(refresh.sent?.saturating_add(per)))
            .filter(|&frees| frees > elapsed);
        let frees_in = frees.clone().next().map(|at| (at - elapsed).as_secs_f64());
        let used = frees.count();
        let second = elapsed.as_secs();
        let mut requests = vec![[0; 3]; TIMELINE_SECONDS];
        for (at, counts) in &record.requests {
            let ago = usize::try_from(second - at).unwrap_or(usize::MAX);
            if let Some(place) = requests.iter_mut().rev().nth(ago) {
                *place = *counts;
            }
        }
        let organizations = states.into_iter().map(|state| Organization {
            has_token: state.has_token(),
            lifetime: record.lifetimes.get(&state.slug).copied(),
            slug: state.slug,
            store_problem: state.store_problem,
            status: state.status,
        });
        Snapshot {
            identity: self.identity.clone(),
            leaving,
            now: now(),
            uptime: second,
            organizations: organizations.collect(),
            used,
            allowed: self.rate_limit.0,
            per: per.as_secs_f64(),
            frees_in,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            total: record.total,
            requests,
            refreshes: record.refreshes.iter().rev().cloned().collect(),
            last_error: record.last_error.clone(),
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
