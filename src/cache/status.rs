//! The status of a cache.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::ErrorKind;

/// The state of a cache.
///
/// For a readiness probe, use [`has_token`](Self::has_token), and call
/// [`warm_up`](super::TokenCache::warm_up) or set `keep_warm`: a pod that is not ready gets no
/// requests, so nothing else would start a fetch.
///
/// Contains no token and no secret. Durations are serialized as seconds.
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
    /// The phase of the token.
    pub phase: Phase,
    /// The number of tokens so far; 0 before the first.
    pub generation: u64,
    /// The time until the token expires.
    #[serde(serialize_with = "seconds")]
    pub expires_in: Option<Duration>,
    /// The granted scope: that of the response or, if it names none, the requested one.
    pub scope: Option<String>,
    /// Whether a server answered 401 to the current token.
    pub rejected: bool,
    /// The kind of the last fetch's error; `None` after a success.
    pub last_error: Option<ErrorKind>,
    /// The number of failed fetches since the last success.
    pub consecutive_failures: u32,
    /// The time until the next fetch may start: during a backoff, while the rate limit is used up, or
    /// before a rejected token is replaced.
    #[serde(serialize_with = "seconds")]
    pub next_attempt_in: Option<Duration>,
    /// The number of token requests that were sent and have ended. Requests without a permit are not
    /// counted.
    pub token_requests: u64,
}

impl TokenStatus {
    /// Returns `true` if there is a token that requests can use now.
    #[must_use]
    pub fn has_token(&self) -> bool {
        match self.phase {
            Phase::Fresh | Phase::RefreshDue | Phase::Refreshing => true,
            Phase::Cold | Phase::Expired | Phase::Failing => false,
        }
    }
}

/// The phase of a cache's token.
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
    /// The cache has not had a token yet.
    Cold,
    /// The token is valid, and no refresh is due.
    Fresh,
    /// The token is valid, but is due for its refresh or was rejected.
    RefreshDue,
    /// The token is valid, and the next one is being fetched.
    Refreshing,
    /// The token has expired, or is within `expiry_margin` of its expiry. The next request fetches one.
    Expired,
    /// There is no valid token, and the last fetch failed.
    Failing,
}

fn seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}
