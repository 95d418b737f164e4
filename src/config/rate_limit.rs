//! The rate limit as data.

use std::time::Duration;

use serde::Deserialize;

/// [`Settings::rate_limit`](super::Settings::rate_limit): a [`RateLimit`](crate::RateLimit) as data.
///
/// ```
/// use officernd_auth::config::RateLimitSettings;
///
/// let rate_limit: RateLimitSettings =
///     serde_json::from_str(r#"{ "requests": 3, "per": "1m" }"#).unwrap();
/// assert_eq!(rate_limit.per.as_secs(), 60);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RateLimitSettings {
    /// At most this many token requests ... Default: 5.
    pub requests: u32,
    /// ... in any window of this length. Default: 60 s.
    #[serde(deserialize_with = "super::text::duration")]
    pub per: Duration,
}

impl RateLimitSettings {
    /// OfficeRnD answers five token requests a minute, failed or successful.
    pub(crate) const OFFICERND: Self = Self {
        requests: 5,
        per: Duration::from_secs(60),
    };
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self::OFFICERND
    }
}
