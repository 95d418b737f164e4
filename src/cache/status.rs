//! The state of a cache, as data.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::ErrorKind;

/// What a cache is doing.
///
/// A readiness probe asks [`has_token`](Self::has_token). Call
/// [`warm_up`](super::TokenCache::warm_up) or set `keep_warm` as well: a pod that is not ready gets
/// no requests, so nothing else would start a fetch.
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
    /// Token requests that are over, counted by their permits. A provider that takes no permit
    /// counts none.
    pub token_requests: u64,
}

impl TokenStatus {
    /// Returns whether there is a token that requests can carry now.
    #[must_use]
    pub fn has_token(&self) -> bool {
        match self.phase {
            Phase::Fresh | Phase::RefreshDue | Phase::Refreshing => true,
            Phase::Cold | Phase::Expired | Phase::Failing => false,
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
    /// The token is expired, or within its `expiry_margin`; the next request
    /// fetches one.
    Expired,
    /// There is no token to serve, and the last fetch failed.
    Failing,
}

fn seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}
