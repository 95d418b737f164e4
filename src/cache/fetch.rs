//! One fetch, in a separate task. Callers may join it and leave it at any time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::keep_warm;
use super::lifecycle::{Lifecycle, Start};
use super::state::State;
use super::token::Token;
use crate::clock::{Now, later};
use crate::error::{Error, ErrorKind};
use crate::observability::Refresh;
use crate::provider::FetchContext;
use crate::sync::Handle;
use crate::token::AccessToken;

/// Starts the fetch. Must be called without the cache's lock: a runtime that shuts down drops the
/// task at once, and the drop takes the lock.
pub(super) fn spawn(state: &Arc<State>, start: Start, runtime: &Handle) {
    keep_warm::ensure(state);
    let refresh = Refresh {
        cause: start.cause.as_str(),
        attempt: start.attempt,
    };
    let span = refresh.span();
    let fetch = FetchTask {
        refresh,
        number: start.number,
        cx: context(state, start),
        state: Arc::clone(state),
    };
    runtime.spawn(tracing::Instrument::instrument(fetch.run(), span));
}

/// Starts the fetch that is due in the background. Outside a runtime, the next call inside one
/// starts it.
#[cold]
pub(super) fn start_due(state: &Arc<State>) {
    if let Ok(runtime) = Handle::try_current() {
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
    let cache = Arc::downgrade(state);
    let stops = move |until| {
        let state = cache.upgrade();
        state.is_some_and(|state| state.with(|it, _| it.move_stop(start.number, until)))
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
        stops: Some(Arc::new(stops)),
        requests: Arc::clone(&state.token_requests),
        ..FetchContext::default()
    }
}

/// A running fetch. Ends exactly once: with a result, or by being dropped without one.
struct FetchTask {
    state: Arc<State>,
    number: u64,
    cx: FetchContext,
    refresh: Refresh,
}

impl FetchTask {
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

    /// Fetches, and retries once after a first transient failure. Before that, an error without a
    /// request, such as another process's failure in a store, only delays the next attempt.
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
                // Without a permit for the retry, the first error is the result.
                Err(again) if again.is_not_attempted() && is_rate_limited(&again) => break,
                again => result = again,
            }
        }
        result
    }

    /// Returns the pause before a retry after this error, or `None` for no retry. `failed` means that
    /// a request of this fetch has failed before.
    fn retries_in(&self, error: &Error, failed: bool) -> Option<Duration> {
        const MOST: Duration = Duration::from_secs(1);

        let asked = error.retry_after().unwrap_or_default();
        let pause = MOST.mul_f32(0.1 + 0.9 * fastrand::f32()).max(asked);
        let first = self.refresh.attempt == 1 && (!failed || error.is_not_attempted());
        let hiccup = error.is_transient() && !is_rate_limited(error) && asked <= MOST;
        let in_time = later(self.cx.clock().now(), pause) < self.cx.deadline();
        (first && hiccup && in_time).then_some(pause)
    }

    /// Makes one attempt. Returns the token, and when it was requested.
    async fn once(&self) -> Result<(AccessToken, Now), Error> {
        // Each attempt has its own record of token requests.
        let cx = FetchContext {
            sent: watch::Sender::default(),
            ..self.cx.clone()
        };
        let started = self.state.now();
        let result = cx.run(self.state.provider.fetch(cx.clone())).await;
        match result {
            // From before the request, so that time on the network shortens the lifetime.
            Ok(access) => Ok((access, cx.last_sent().unwrap_or(started))),
            Err(error) => Err(error.mark_unsent(cx.was_unsent())),
        }
    }
}

fn is_rate_limited(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        // Has no effect if the fetch has ended with a result.
        if self.state.with(|it, now| it.lost(self.number, now)) {
            self.refresh.lost();
        }
    }
}
