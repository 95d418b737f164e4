//! Every name that an operator may build on. docs/observability.md lists them;
//! a test compares.

pub(super) mod span {
    pub(crate) const REFRESH: &str = "officernd_auth.refresh";
    pub(crate) const TOKEN_REQUEST: &str = "officernd_auth.token_request";
}

pub(super) mod event {
    pub(crate) const REFRESHED: &str = "officernd_auth.refreshed";
    pub(crate) const REFRESH_FAILED: &str = "officernd_auth.refresh_failed";
    pub(crate) const REFRESH_DEFERRED: &str = "officernd_auth.refresh_deferred";
    pub(crate) const REFRESH_ABANDONED: &str = "officernd_auth.refresh_abandoned";
    pub(crate) const REFRESH_LOST: &str = "officernd_auth.refresh_lost";
    pub(crate) const TOKEN_REJECTED: &str = "officernd_auth.token_rejected";
    pub(crate) const CREDENTIALS_UNREADABLE: &str = "officernd_auth.credentials_unreadable";
    pub(crate) const SCOPE_NARROWED: &str = "officernd_auth.scope_narrowed";
    #[cfg(feature = "store")]
    pub(crate) const STORE_FAILED: &str = "officernd_auth.store_failed";
    #[cfg(feature = "store")]
    pub(crate) const STORE_BACK: &str = "officernd_auth.store_back";
    #[cfg(feature = "store")]
    pub(crate) const STORE_ENTRY_UNUSABLE: &str = "officernd_auth.store_entry_unusable";
    #[cfg(feature = "redis")]
    pub(crate) const STORE_EVICTS: &str = "officernd_auth.store_evicts";
    #[cfg(feature = "store")]
    pub(crate) const TOKEN_SHARED: &str = "officernd_auth.token_shared";
}

#[cfg(feature = "metrics")]
pub(super) mod metric {
    pub(crate) const REQUESTS: &str = "officernd_auth_requests_total";
    pub(crate) const WAITING: &str = "officernd_auth_waiting_requests";
    pub(crate) const WAIT: &str = "officernd_auth_wait_seconds";
    pub(crate) const REFRESHES: &str = "officernd_auth_refreshes_total";
    pub(crate) const REFRESH: &str = "officernd_auth_refresh_duration_seconds";
    pub(crate) const TOKEN_REQUESTS: &str = "officernd_auth_token_requests_total";
    pub(crate) const REJECTIONS: &str = "officernd_auth_token_rejections_total";
    pub(crate) const TOKEN_AGE: &str = "officernd_auth_token_age_seconds";
    pub(crate) const ISSUED: &str = "officernd_auth_token_issued_timestamp_seconds";
    pub(crate) const EXPIRES: &str = "officernd_auth_token_expiry_timestamp_seconds";
    #[cfg(feature = "store")]
    pub(crate) const STORE_REFRESHES: &str = "officernd_auth_store_refreshes_total";
    #[cfg(feature = "store")]
    pub(crate) const STORE_FAILURES: &str = "officernd_auth_store_failures_total";
}
