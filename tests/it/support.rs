//! What the tests of the token path share.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use officernd_auth::testing::{ManualClock, ScriptedProvider};
use officernd_auth::{AccessToken, Builder, Error, OfficeRndAuthLayer, RateLimit, TokenCache};

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A cache of this provider without jitter and without a rate limit, unless
/// `set` says otherwise.
pub(crate) fn cache_with(
    provider: &ScriptedProvider,
    set: impl FnOnce(Builder) -> Builder,
) -> TokenCache {
    let builder = OfficeRndAuthLayer::builder(provider.clone())
        .refresh_ahead(s(300))
        .jitter(0.0)
        .rate_limit(RateLimit::unlimited());
    set(builder).build().unwrap().cache().clone()
}

/// The same, on a clock that is stepped by hand.
pub(crate) fn stepped(provider: &ScriptedProvider) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = cache_with(provider, |builder| builder.clock(clock.clone()));
    (cache, clock)
}

/// Lets every task run until none has anything left to do now.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What the future has to say without any waiting.
pub(crate) fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match poll(pin!(future)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What goes out on a request.
pub(crate) fn header(token: &AccessToken) -> &str {
    token.header_value().to_str().unwrap()
}

/// The header of what a caller got.
pub(crate) fn served(result: &Result<AccessToken, Error>) -> &str {
    match result {
        Ok(token) => header(token),
        Err(error) => panic!("no token: {error:?}"),
    }
}

/// The header of what goes out now, without any waiting.
pub(crate) fn now(cache: &TokenCache) -> Option<String> {
    cache.try_token().map(|token| header(&token).to_owned())
}

/// Measures on tokio's clock, paused or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(tokio::time::Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock themselves"
)]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
