//! One fetch, in a task of its own: callers that wait may leave, and others may
//! join them.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::attempt::{Completed, StartFetch};
use super::lifetime::{Freshness, IssuedToken};
use super::state::State;
use crate::clock::{Age, Now, later};
use crate::error::{Error, ErrorKind};
use crate::observability::Refresh;
use crate::provider::{AFTER_REQUEST, Cause, FetchContext, Previous, Requests};
use crate::rate_limit::{Class, Flight};
use crate::sync::{Ordering, Runtime};
use crate::token::AccessToken;

/// Starts the fetch. Call it without the cache's lock: a runtime that shuts
/// down drops the task at once, and with it the fetch.
pub(super) fn spawn(state: &Arc<State>, start: StartFetch, runtime: &Runtime) {
    let fetch = Fetch {
        refresh: Refresh {
            cause: start.cause.as_str(),
            attempt: start.attempt,
        },
        id: start.id,
        cx: context(state, start),
        state: Arc::clone(state),
    };
    let span = fetch.refresh.span();
    runtime.spawn(tracing::Instrument::instrument(fetch.run(), span));
}

/// Starts what is due in the background, if there is a runtime to carry it.
pub(super) fn spawn_due(state: &Arc<State>) {
    // Outside a runtime the next call inside one starts it.
    let Ok(runtime) = Runtime::current() else {
        return;
    };
    if let Some(start) = state.check() {
        spawn(state, start, &runtime);
    }
}

fn context(state: &Arc<State>, start: StartFetch) -> FetchContext {
    let now = state.now();
    let expires_at = start.expires_at;
    let previous = |token: Arc<IssuedToken>| {
        Box::new(Previous {
            token: token.token.clone(),
            ends_at: expires_at.unwrap_or(now.monotonic),
        })
    };
    FetchContext {
        cause: start.cause,
        urgency: state.urgency_of(start.id),
        deadline: later(now.monotonic, state.settings.acquire_timeout),
        fetch_timeout: state.settings.fetch_timeout,
        rate_limit: state.rate_limit.clone(),
        class: class(&start, now),
        clock: Arc::clone(&state.settings.clock),
        requests: Requests::new(Some(Box::new(InCache {
            state: Arc::downgrade(state),
            id: start.id,
            deadline: later(now.monotonic, state.settings.acquire_timeout),
        }))),
        reserved: Arc::default(),
        depth: 0,
        previous: start.previous.map(previous),
    }
}

/// The cache's side of a fetch.
struct InCache {
    state: Weak<State>,
    id: u64,
    deadline: Instant,
}

impl Flight for InCache {
    fn granted(&self) -> bool {
        self.state.upgrade().is_some_and(|state| {
            let answered_by = later(state.now().monotonic, state.settings.fetch_timeout);
            state.advanced(self.id, answered_by)
        })
    }

    fn answered(&self, sent: bool) {
        let Some(state) = self.state.upgrade() else {
            return;
        };
        let mut stops_at = self.deadline;
        if sent {
            state.sent.fetch_add(1, Ordering::Relaxed);
            let goes_on = state.settings.fetch_timeout.saturating_add(AFTER_REQUEST);
            stops_at = later(state.now().monotonic, goes_on).max(stops_at);
        }
        state.advanced(self.id, stops_at);
    }
}

/// The class of the fetches whose place in line does not follow their urgency.
fn class(start: &StartFetch, now: Now) -> Option<Class> {
    let fresh = |token: &Arc<IssuedToken>| token.freshness(now) == Freshness::Fresh;
    if start.failing {
        return Some(Class::Failing);
    }
    let early = start.cause == Cause::Rejected && start.previous.as_ref().is_some_and(fresh);
    early.then_some(Class::Rejected)
}

/// Ends exactly once: with a result, or by being dropped without one.
struct Fetch {
    state: Arc<State>,
    id: u64,
    cx: FetchContext,
    refresh: Refresh,
}

impl Fetch {
    async fn run(self) {
        let started = self.state.now().monotonic;
        let result = self.fetch().await;
        let took = self
            .state
            .now()
            .monotonic
            .saturating_duration_since(started);
        match self.state.completed(self.id, result) {
            Some(Completed::Published { issued, .. }) => {
                let token = &issued.token;
                self.refresh
                    .done(token.generation(), token.expires_in(), took);
            }
            Some(Completed::Failed(error)) => self.refresh.failed(&error, took),
            None => self.refresh.abandoned(),
        }
    }

    async fn fetch(&self) -> Result<(AccessToken, Age), Error> {
        let Self { state, cx, .. } = self;
        if !state.advanced(self.id, cx.deadline) {
            let given_up = Error::new(ErrorKind::Runtime, "the fetch was given up");
            return Err(given_up.not_attempted());
        }
        let started = state.now();
        let result = cx.run(state.provider.fetch(cx.clone())).await;
        // Counted from before the request: what the network takes is not life.
        let sent_at = cx.sent_at();
        let (now, wall) = sent_at.unwrap_or((started.monotonic, started.wall));
        match result {
            Ok(token) => Ok((token, Age::starting(now, wall))),
            Err(error) => Err(error.mark_unsent(cx.was_unsent())),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // Without effect after an end with a result.
        if self.state.lost(self.id) {
            self.refresh.lost();
        }
    }
}
