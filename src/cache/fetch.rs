//! One fetch, in a task of its own: who waits may leave, who comes may join.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::core::Core;
use crate::allowance::{Permit, Urgency};
use crate::clock::{Age, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::observability::Refresh;
use crate::provider::FetchContext;
use crate::sync::Runtime;
use crate::token::AccessToken;

/// A flight that runs ends itself on time. This much later it is known to
/// stand still, with the runtime that carries it.
pub(super) const GRACE: Duration = Duration::from_secs(1);

pub(super) type Outcome = Result<AccessToken, Error>;

/// The flight as its cache knows it.
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    pub(super) overdue: Instant,
    /// Given back with the flight, whatever becomes of its task.
    pub(super) permit: Option<Permit>,
    urgency: watch::Sender<Urgency>,
}

impl Flight {
    /// A request waits for it now.
    pub(super) fn promote(&self) {
        self.urgency.send_if_modified(|urgency| {
            let promoted = *urgency != Urgency::Waiting;
            *urgency = Urgency::Waiting;
            promoted
        });
    }
}

/// A flight about to start. Spawned outside the cache's lock, since a runtime
/// that shuts down drops the task, and so lands it, at once.
pub(super) struct Launch {
    runtime: Runtime,
    landing: Landing,
    cx: FetchContext,
}

pub(super) fn prepare(
    core: Arc<Core>,
    runtime: Runtime,
    id: u64,
    urgency: watch::Sender<Urgency>,
    attempt: u32,
    cx: FetchContext,
) -> (Flight, Launch) {
    let (waiters, outcome) = watch::channel(None);
    let flight = Flight {
        id,
        outcome,
        // A task that has not even begun by then stands still, too.
        overdue: later(cx.clock().now(), GRACE),
        permit: None,
        urgency,
    };
    let refresh = Refresh {
        cause: cx.cause.as_str(),
        attempt,
    };
    let landing = Landing {
        core,
        id,
        refresh,
        waiters,
    };
    (
        flight,
        Launch {
            runtime,
            landing,
            cx,
        },
    )
}

impl Launch {
    pub(super) fn spawn(self) {
        let Self {
            runtime,
            landing,
            cx,
        } = self;
        let span = landing.refresh.span();
        runtime.spawn(tracing::Instrument::instrument(
            async move {
                let started = landing.core.now();
                let result = fetch(&landing.core, landing.id, &cx).await;
                let took = landing.core.now().saturating_duration_since(started);
                match landing.land(result) {
                    Some(Ok(token)) => {
                        let life = token.expires_in();
                        landing.refresh.done(token.generation(), life, took);
                    }
                    Some(Err(error)) => landing.refresh.failed(&error, took),
                    None => landing.refresh.abandoned(),
                }
            },
            span,
        ));
    }
}

async fn fetch(core: &Core, id: u64, cx: &FetchContext) -> Result<(AccessToken, Age), Error> {
    let clock = &core.settings.clock;
    let given_up = || Error::new(ErrorKind::Runtime, "the fetch was given up").not_attempted();
    if !core.extend(id, cx.deadline, None) {
        return Err(given_up());
    }
    let spends_itself = core.provider.spends_allowance();
    let permit = if spends_itself {
        None
    } else {
        Some(cx.permit().await?)
    };
    // Counted from before the request: what the network takes is not life.
    let start = clock.now();
    let age = Age::starting(start, clock.wall());
    let until = if spends_itself {
        cx.deadline
    } else {
        later(start, cx.fetch_timeout)
    };
    if !core.extend(id, until, permit) {
        return Err(given_up());
    }
    let fetched = timeout_at(&**clock, until, core.provider.fetch(cx.clone())).await;
    match fetched {
        Some(result) => Ok((result?, age)),
        None => Err(Error::new(
            ErrorKind::Timeout,
            "the token endpoint did not answer within the fetch timeout",
        )),
    }
}

/// Lands exactly once: with a result, or by being dropped without one.
struct Landing {
    core: Arc<Core>,
    id: u64,
    refresh: Refresh,
    waiters: watch::Sender<Option<Outcome>>,
}

impl Landing {
    fn land(&self, result: Result<(AccessToken, Age), Error>) -> Option<Outcome> {
        let outcome = self.core.land(self.id, result);
        if let Some(outcome) = &outcome {
            self.waiters.send_replace(Some(outcome.clone()));
        }
        outcome
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Without effect after a landing. Before the sender goes, so that
        // whoever sees it gone finds the way free.
        if self.core.lost(self.id) {
            self.refresh.lost();
        }
        // The runtime that carried the timer may be gone.
        self.core.warm.ensure(&self.core);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
