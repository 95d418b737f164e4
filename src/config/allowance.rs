//! The allowance as data.

use std::time::Duration;

use serde::Deserialize;

/// [`Settings::allowance`](super::Settings::allowance): an [`Allowance`](crate::Allowance) as data.
///
/// ```
/// use officernd_auth::config::AllowanceSettings;
///
/// let allowance: AllowanceSettings =
///     serde_json::from_str(r#"{ "requests": 3, "per": "1m" }"#).unwrap();
/// assert_eq!(allowance.per.as_secs(), 60);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AllowanceSettings {
    /// At most this many token requests ... Default: 5.
    pub requests: u32,
    /// ... in any window of this length. Default: 60 s.
    #[serde(deserialize_with = "super::text::duration")]
    pub per: Duration,
}

impl AllowanceSettings {
    /// OfficeRnD answers five token requests a minute, failed or successful.
    pub(crate) const OFFICERND: Self = Self {
        requests: 5,
        per: Duration::from_secs(60),
    };
}

impl Default for AllowanceSettings {
    fn default() -> Self {
        Self::OFFICERND
    }
}
