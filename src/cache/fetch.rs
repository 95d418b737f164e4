//! One fetch, in a task of its own: callers that wait may leave, and others may
//! join them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::lifecycle::{Lifecycle, Start};
use super::state::State;
use super::token::Token;
use crate::clock::{Now, later};
use crate::error::{Error, ErrorKind};
use crate::observability::Refresh;
use crate::provider::FetchContext;
use crate::rate_limit::Flight;
use crate::sync::{Ordering, Runtime};
use crate::token::AccessToken;

/// Starts the fetch. Call it without the cache's lock: a runtime that shuts
/// down drops the task at once, and with it the fetch.
pub(super) fn spawn(state: &Arc<State>, start: Start, runtime: &Runtime) {
    let refresh = Refresh {
        cause: start.cause.as_str(),
        attempt: start.attempt,
    };
    let span = refresh.span();
    let fetch = Fetch {
        refresh,
        number: start.number,
        cx: context(state, start),
        state: Arc::clone(state),
    };
    runtime.spawn(tracing::Instrument::instrument(fetch.run(), span));
}

/// Starts what is due in the background, if there is a runtime to carry it.
pub(super) fn start_due(state: &Arc<State>) {
    // Outside a runtime the next call inside one starts it.
    if let Ok(runtime) = Runtime::current() {
        if let Some(start) = state.with(Lifecycle::check) {
            spawn(state, start, &runtime);
        }
    }
}

fn context(state: &Arc<State>, start: Start) -> FetchContext {
    let now = state.now();
    let previous = |token: Arc<Token>| {
        let ends_at = later(now.monotonic, token.left(now));
        (token.access().clone(), ends_at)
    };
    FetchContext {
        cause: start.cause,
        urgency: start.urgency,
        deadline: start.deadline,
        fetch_timeout: state.settings.fetch_timeout,
        rate_limit: state.rate_limit.clone(),
        class: start.class,
        clock: Arc::clone(&state.clock),
        previous: start.previous.map(previous),
        flight: Some(Arc::new(InCache {
            state: Arc::downgrade(state),
            number: start.number,
        })),
        ..FetchContext::default()
    }
}

/// The cache's side of the token requests of a fetch.
struct InCache {
    state: Weak<State>,
    number: u64,
}

impl Flight for InCache {
    fn granted(&self) -> bool {
        let state = self.state.upgrade();
        state.is_some_and(|state| state.with(|it, now| it.granted(self.number, now)))
    }

    fn answered(&self, sent: bool) {
        let Some(state) = self.state.upgrade() else {
            return;
        };
        if sent {
            state.sent.fetch_add(1, Ordering::Relaxed);
        }
        state.with(|lifecycle, now| lifecycle.answered(self.number, sent, now));
    }
}

/// Ends exactly once: with a result, or by being dropped without one.
struct Fetch {
    state: Arc<State>,
    number: u64,
    cx: FetchContext,
    refresh: Refresh,
}

impl Fetch {
    async fn run(self) {
        let now = || self.state.now().monotonic;
        let started = now();
        let result = self.fetch().await;
        let took = now().saturating_duration_since(started);
        match self.state.ended(self.number, result) {
            Some(Ok(token)) => {
                let life = token.access().expires_in();
                self.refresh.done(token.generation(), life, took);
            }
            Some(Err(error)) => self.refresh.failed(&error, took),
            None => self.refresh.abandoned(),
        }
    }

    /// Fetches, and tries once more after a first transient failure. A failure of another process
    /// that was only read is waited out as well.
    async fn fetch(&self) -> Result<(AccessToken, Now), Error> {
        let mut failed = false;
        let mut result = self.once().await;
        while let Err(error) = &result {
            let Some(pause) = self.retries_in(error, failed) else {
                break;
            };
            if !error.is_not_attempted() {
                failed = true;
                self.refresh.retried(error, pause);
            }
            let clock = self.cx.clock();
            clock.sleep_until(later(clock.now(), pause)).await;
            match self.once().await {
                // There was no place for it.
                Err(again) if again.is_not_attempted() && is_rate_limited(&again) => break,
                again => result = again,
            }
        }
        result
    }

    /// In how long the fetch is tried again after this error, if it is. `failed`: a request of
    /// this fetch has failed before.
    fn retries_in(&self, error: &Error, failed: bool) -> Option<Duration> {
        const MOST: Duration = Duration::from_secs(1);

        let asked = error.retry_after().unwrap_or_default();
        let pause = MOST.mul_f32(0.1 + 0.9 * fastrand::f32()).max(asked);
        let first = self.refresh.attempt == 1 && (!failed || error.is_not_attempted());
        let hiccup = error.is_transient() && !is_rate_limited(error) && asked <= MOST;
        let in_time = later(self.cx.clock().now(), pause) < self.cx.deadline();
        (first && hiccup && in_time).then_some(pause)
    }

    /// Returns the token, and when it was requested.
    async fn once(&self) -> Result<(AccessToken, Now), Error> {
        let state = &self.state;
        if !state.with(|lifecycle, _| lifecycle.begun(self.number)) {
            let given_up = Error::new(ErrorKind::Runtime, "the fetch was given up");
            return Err(given_up.not_attempted());
        }
        // Each try knows of its own requests only.
        let cx = FetchContext {
            sent: watch::Sender::default(),
            ..self.cx.clone()
        };
        let started = state.now();
        let result = cx.run(state.provider.fetch(cx.clone())).await;
        match result {
            // Counted from before the request: what the network takes is not life.
            Ok(access) => Ok((access, cx.last_sent().unwrap_or(started))),
            Err(error) => Err(error.mark_unsent(cx.was_unsent())),
        }
    }
}

fn is_rate_limited(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // Without effect after an end with a result.
        if self.state.with(|it, now| it.lost(self.number, now)) {
            self.refresh.lost();
        }
    }
}
