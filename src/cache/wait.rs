//! Waits for a token: asks the [lifecycle](super::lifecycle), acts on what it
//! decides, and asks again after each change.

use std::sync::Arc;
use std::time::Duration;

use super::caller::Caller;
use super::fetch;
use super::keep_warm;
use super::lifecycle::Decision;
use super::state::State;
use crate::clock::timeout_at;
use crate::error::{Error, ErrorKind};
use crate::sync::{Ordering, Runtime};
use crate::token::AccessToken;

/// The largest number of callers that wait for one token. One more is refused at once.
const MAX_WAITING: usize = 65_536;

/// The token for this caller, or why there is none. Cancel safe: the fetch goes
/// on.
pub(super) async fn acquire(state: &Arc<State>, mut caller: Caller) -> Result<AccessToken, Error> {
    let _waiting = Waiting::enter(state)?;
    let mut changes = state.changes.subscribe();
    loop {
        // Before the decision: a change after it ends the wait.
        changes.mark_unchanged();
        let runtime = match Runtime::current() {
            Ok(runtime) => runtime,
            Err(error) => return state.usable(&caller).ok_or(error),
        };
        match state.acquire(&mut caller) {
            Decision::Ready(token) => return Ok(token),
            Decision::Failed(error) => return Err(error),
            Decision::Wait { until, start } => {
                if let Some(start) = start {
                    keep_warm::ensure(state);
                    fetch::spawn(state, start, &runtime);
                }
                let clock = &*state.settings.clock;
                timeout_at(clock, until, changes.changed()).await;
                // Thousands wake at once for one token: no lock for them.
                if let Some(token) = state.ready(&caller) {
                    return Ok(token);
                }
            }
        }
    }
}

/// Bounds the number of waiting callers.
struct Waiting<'a>(&'a State);

impl<'a> Waiting<'a> {
    fn enter(state: &'a State) -> Result<Self, Error> {
        let waiting = Self(state);
        if state.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            return Ok(waiting);
        }
        let error = Error::new(
            ErrorKind::RateLimited,
            "65,536 requests wait for a token already; this one was not added",
        );
        Err(error.with_retry_after(Duration::from_secs(1)))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::TokenCache;
    use crate::provider::provider_fn;

    fn cache() -> TokenCache {
        TokenCache::new(provider_fn(|| async {
            AccessToken::bearer("t", Duration::from_secs(3600))
        }))
    }

    #[tokio::test]
    async fn as_many_callers_wait_as_are_allowed_and_the_next_is_refused() {
        let cache = cache();
        let waiting = &cache.state.waiting;
        waiting.store(MAX_WAITING, Ordering::Relaxed);
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert!(error.retry_after().is_some());
        // The refused one does not count.
        assert_eq!(waiting.load(Ordering::Relaxed), MAX_WAITING);
        waiting.store(MAX_WAITING - 1, Ordering::Relaxed);
        assert!(cache.token().await.is_ok());
        assert_eq!(waiting.load(Ordering::Relaxed), MAX_WAITING - 1);
    }

    #[tokio::test]
    async fn callers_who_leave_no_longer_count() {
        let cache = cache();
        for _ in 0..3 {
            let mut caller = std::pin::pin!(cache.token());
            let first = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(caller.as_mut().poll(cx).is_pending())
            });
            assert!(first.await);
            assert_eq!(cache.state.waiting.load(Ordering::Relaxed), 1);
        }
        assert_eq!(cache.state.waiting.load(Ordering::Relaxed), 0);
    }
}
