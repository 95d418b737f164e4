use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, request};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fault::Faults;
use crate::recorded::RecordedRequest;
use crate::settings::SimulatorBuilder;
use crate::tokens::Tokens;

/// The maximum number of recorded requests. Later ones are only counted: the program may run for weeks.
const MAX_RECORDED: usize = 100_000;

/// The endpoint of a request, by its path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Token,
    Api,
    Other,
}

impl Endpoint {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/oauth/token" => Self::Token,
            path if path.starts_with("/api/") => Self::Api,
            _ => Self::Other,
        }
    }
}

/// State shared by the handle and all connections.
pub(crate) struct Shared {
    started: Instant,
    pub(crate) token_faults: Faults,
    pub(crate) api_faults: Faults,
    /// A `watch`, so that a test can wait for a count.
    pub(crate) token_requests: watch::Sender<u64>,
    state: Mutex<State>,
}

/// The lock is never held across an await.
pub(crate) struct State {
    pub(crate) settings: SimulatorBuilder,
    pub(crate) tokens: Tokens,
    window: Window,
    pub(crate) requests: Vec<RecordedRequest>,
    pub(crate) api_requests: u64,
    pub(crate) api_unauthorized: u64,
}

impl Shared {
    pub(crate) fn new(settings: SimulatorBuilder) -> Self {
        Self {
            started: now(),
            token_faults: Faults::default(),
            api_faults: Faults::default(),
            token_requests: watch::Sender::new(0),
            state: Mutex::new(State {
                settings,
                tokens: Tokens::default(),
                window: Window::default(),
                requests: Vec::new(),
                api_requests: 0,
                api_unauthorized: 0,
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records and counts a request on arrival. Returns its index in the log and, if the rate limit refuses it, for how
    /// long.
    pub(crate) fn arrived(
        &self,
        endpoint: Endpoint,
        parts: &request::Parts,
        body: Option<&Bytes>,
    ) -> (usize, Option<Duration>) {
        let mut guard = self.state();
        // Read under the lock, so that arrivals are in order.
        let now = now();
        let state = &mut *guard;
        let place = state.requests.len();
        if place < MAX_RECORDED {
            let kept = body.filter(|_| endpoint == Endpoint::Token);
            state.requests.push(RecordedRequest {
                at: now.duration_since(self.started),
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                headers: parts.headers.clone(),
                body: kept.cloned().unwrap_or_default(),
                status: None,
            });
        }
        let refused = match (endpoint, state.settings.rate_limit) {
            (Endpoint::Token, Some((limit, per))) => state.window.charge(now, limit, per),
            _ => None,
        };
        state.api_requests += u64::from(endpoint == Endpoint::Api);
        drop(guard);
        if endpoint == Endpoint::Token {
            self.token_requests.send_modify(|seen| *seen += 1);
        }
        (place, refused)
    }
}

impl State {
    pub(crate) fn answered(&mut self, place: usize, endpoint: Endpoint, status: StatusCode) {
        let unauthorized = endpoint == Endpoint::Api && status == StatusCode::UNAUTHORIZED;
        self.api_unauthorized += u64::from(unauthorized);
        if let Some(request) = self.requests.get_mut(place) {
            request.status = Some(status.as_u16());
        }
    }

    pub(crate) fn max_token_requests_in(&self, window: Duration) -> usize {
        let token = |r: &&RecordedRequest| Endpoint::of(r.uri.path()) == Endpoint::Token;
        let arrivals: Vec<_> = self.requests.iter().filter(token).map(|r| r.at).collect();
        let within = |(index, last): (usize, &Duration)| {
            let first = arrivals.partition_point(|first| last.saturating_sub(*first) >= window);
            index + 1 - first
        };
        arrivals.iter().enumerate().map(within).max().unwrap_or(0)
    }
}

/// A sliding window over the token requests. Refused requests count too: the strictest kind of rate limit.
#[derive(Default)]
struct Window {
    arrivals: VecDeque<Instant>,
}

impl Window {
    /// Counts a request. If it is over the limit, returns how long the limit stays exceeded.
    fn charge(&mut self, now: Instant, limit: u32, per: Duration) -> Option<Duration> {
        let age = |arrival: &Instant| now.duration_since(*arrival);
        while self.arrivals.front().is_some_and(|first| age(first) >= per) {
            self.arrivals.pop_front();
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let refused = self.arrivals.len() >= limit;
        self.arrivals.push_back(now);
        // Only the last `limit` arrivals decide.
        while self.arrivals.len() > limit {
            self.arrivals.pop_front();
        }
        let oldest = self.arrivals.front().map_or(Duration::ZERO, age);
        refused.then(|| per.saturating_sub(oldest))
    }
}

/// Reads the clock: the only place that does.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator follows tokio's clock, even while it is paused"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
