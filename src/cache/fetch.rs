//! One fetch, in a task of its own: callers that wait may leave, and others may
//! join them.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Completed, StartFetch};
use super::lifecycle::Due;
use super::lifetime::{Freshness, IssuedToken};
use super::state::State;
use crate::clock::{Age, Now, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::observability::Refresh;
use crate::provider::{Cause, FetchContext, Previous};
use crate::rate_limit::Class;
use crate::sync::Runtime;
use crate::token::AccessToken;

/// How long a provider that takes its permits itself may take beyond its last
/// token request.
const AFTER_REQUEST: Duration = Duration::from_secs(5);

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
    match state.check() {
        Some(Due::Fetch(start)) => spawn(state, start, &runtime),
        Some(Due::CheckCredentials) => {
            let state = Arc::clone(state);
            runtime.spawn(async move {
                if state.credentials_changed().await {
                    spawn_due(&state);
                }
            });
        }
        None => {}
    }
}

fn context(state: &State, start: StartFetch) -> FetchContext {
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
        sent: Arc::clone(&state.sent),
        previous: start.previous.map(previous),
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
        let given_up = || Error::new(ErrorKind::Runtime, "the fetch was given up").not_attempted();
        let Self { state, cx, .. } = self;
        if !state.advanced(self.id, cx.deadline) {
            return Err(given_up());
        }
        let spends_itself = state.provider.takes_permits();
        let permit = match spends_itself {
            true => None,
            false => Some(cx.permit().await?),
        };
        // Counted from before the request: what the network takes is not life.
        let start = state.now();
        let age = Age::starting(start.monotonic, start.wall);
        let until = match spends_itself {
            // A request that was sent at the last moment is not cut off.
            true => later(cx.deadline, cx.fetch_timeout.saturating_add(AFTER_REQUEST)),
            false => later(start.monotonic, cx.fetch_timeout),
        };
        if !state.advanced(self.id, until) {
            return Err(given_up());
        }
        let fetched = timeout_at(cx.clock(), until, state.provider.fetch(cx.clone())).await;
        let result = fetched.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Timeout,
                "the token endpoint did not answer within the fetch timeout",
            ))
        });
        if let (Some(permit), Err(error)) = (permit, &result) {
            if error.is_unsent() {
                permit.unsent();
            }
        }
        Ok((result?, age))
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
