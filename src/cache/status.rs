//! The state of a cache, as data.

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::attempt::Attempts;
use super::lifetime::{Freshness, IssuedToken};
use crate::clock::Now;
use crate::error::ErrorKind;

/// What a cache is doing. A readiness probe asks [`has_token`](Self::has_token), of
/// a cache that [keeps itself warm](super::TokenCache::warm_up): one that waits for
/// requests gets none while it is not ready.
///
/// It holds no token and no secret. As JSON, durations are seconds.
///
/// ```
/// use officernd_auth::{Phase, StaticToken, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// let cache = TokenCache::new(StaticToken::new("abc")?);
/// assert_eq!(cache.status().phase, Phase::Cold);
/// cache.warm_up().await?;
/// assert!(cache.status().has_token());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenStatus {
    /// Where the token is in its life.
    pub phase: Phase,
    /// How many tokens there have been; 0 is none yet.
    pub generation: u64,
    /// The rest of the token's life.
    #[serde(serialize_with = "seconds")]
    pub expires_in: Option<Duration>,
    /// The scope that the server granted, where it named one.
    pub scope: Option<String>,
    /// Whether a server rejected the token that is in use.
    pub rejected: bool,
    /// Why the last fetch failed; `None` after a success.
    pub last_error: Option<ErrorKind>,
    /// Fetches failed since the last success.
    pub consecutive_failures: u32,
    /// When the next fetch may start: during a backoff, while the rate limit is
    /// used up, or while a rejected token waits for its replacement.
    #[serde(serialize_with = "seconds")]
    pub next_attempt_in: Option<Duration>,
    /// Token requests that were sent and are over (for custom providers: calls of `fetch`). One
    /// whose connection was never made does not count.
    pub token_requests: u64,
}

impl TokenStatus {
    /// Whether there is a token that requests can carry now.
    #[must_use]
    pub fn has_token(&self) -> bool {
        match self.phase {
            Phase::Fresh | Phase::RefreshDue | Phase::Refreshing | Phase::ExpiringSoon => true,
            Phase::Cold | Phase::Expired | Phase::Failing => false,
        }
    }

    /// Builds the status from a cache's state. `next_attempt_at` is set while
    /// the next fetch is held back.
    pub(super) fn describe(
        token: Option<&IssuedToken>,
        rejected: bool,
        fetch: &Attempts,
        next_attempt_at: Option<Instant>,
        token_requests: u64,
        now: Now,
    ) -> Self {
        let next_attempt_in = next_attempt_at.map(|at| at.saturating_duration_since(now.monotonic));
        let failure = fetch.last_failure.as_ref();
        let in_flight = fetch.overdue_at().is_some();
        let phase = match token.map(|token| token.freshness(now)) {
            None | Some(Freshness::Expired) if failure.is_some() => Phase::Failing,
            None => Phase::Cold,
            Some(Freshness::Expired) => Phase::Expired,
            Some(_) if in_flight => Phase::Refreshing,
            Some(Freshness::ExpiringSoon) => Phase::ExpiringSoon,
            Some(Freshness::Fresh) if !rejected => Phase::Fresh,
            Some(Freshness::Fresh | Freshness::RefreshDue) => Phase::RefreshDue,
        };
        Self {
            phase,
            generation: token.map_or(0, |token| token.token.generation()),
            expires_in: token.map(|token| token.left(now)),
            scope: token.and_then(|token| token.token.scope().map(str::to_owned)),
            rejected,
            last_error: failure.map(|failure| failure.error.kind()),
            consecutive_failures: failure.map_or(0, |failure| failure.in_a_row),
            next_attempt_in: next_attempt_in.filter(|wait| !wait.is_zero()),
            token_requests,
        }
    }
}

/// Where a cache's token is in its life.
///
/// ```
/// use officernd_auth::{Phase, StaticToken, TokenCache};
///
/// # fn main() -> Result<(), officernd_auth::Error> {
/// let cache = TokenCache::new(StaticToken::new("abc")?);
/// assert_eq!(cache.status().phase, Phase::Cold);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// There was no token yet.
    Cold,
    /// The token serves; nothing to do.
    Fresh,
    /// The token serves, and is to be refreshed, or was rejected.
    RefreshDue,
    /// The token serves; the next one is being fetched.
    Refreshing,
    /// The token serves for its last seconds; requests wait for the next one.
    ExpiringSoon,
    /// The token is expired; the next request fetches one.
    Expired,
    /// There is no token to serve, and the last fetch failed.
    Failing,
}

fn seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}
