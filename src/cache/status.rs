//! The state of a cache, as data.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::ErrorKind;

/// What a cache is doing, fit for a readiness probe: ready is
/// [`has_token`](Self::has_token).
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
    /// What is left of the token's life.
    #[serde(serialize_with = "seconds")]
    pub expires_in: Option<Duration>,
    /// The scope that the server granted, where it named one.
    pub scope: Option<String>,
    /// Whether a server rejected the token that is in use.
    pub rejected: bool,
    /// What the last fetch failed of; `None` after a success.
    pub last_error: Option<ErrorKind>,
    /// Fetches failed since the last success.
    pub consecutive_failures: u32,
    /// When the next fetch may start, while one is held back.
    #[serde(serialize_with = "seconds")]
    pub next_attempt_in: Option<Duration>,
    /// Token requests sent so far (for custom providers: calls of `fetch`).
    pub token_requests: u64,
}

impl TokenStatus {
    /// Whether there is a living token: a request would not fail for want of one.
    #[must_use]
    pub fn has_token(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Refreshing | Phase::Aging)
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
    /// No token yet.
    Cold,
    /// The token serves; nothing to do.
    Fresh,
    /// The token serves; the next one is being fetched.
    Refreshing,
    /// The token serves, past the time of its refresh or after a rejection.
    Aging,
    /// The token is dead; the next request fetches one.
    Expired,
    /// There is no living token, and the last fetch failed.
    Failing,
}

fn seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}
