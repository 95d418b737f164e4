//! How settings are read.

use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{RateLimitSettings, Settings, text};
use crate::secret::Secret;

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut settings = Fields::deserialize(from)?;
        let scope = mem::take(&mut settings.scope);
        if settings.scopes.is_empty() {
            settings.scopes = scope;
        } else if !scope.is_empty() && scope != settings.scopes {
            return Err(D::Error::custom(
                "scope and scopes are two names of one setting and are both set; keep one",
            ));
        }
        Ok(settings)
    }
}

/// [`Settings`] as written. Not an `alias` for `scope`: with both names, as in a
/// file and in the environment over it, serde reports a "duplicate field".
#[derive(Deserialize)]
#[serde(
    remote = "Settings",
    default = "Settings::default",
    deny_unknown_fields
)]
struct Fields {
    #[serde(deserialize_with = "text::optional")]
    client_id: Option<String>,
    client_id_file: Option<PathBuf>,
    #[serde(deserialize_with = "text::secret")]
    client_secret: Option<Secret>,
    client_secret_file: Option<PathBuf>,
    #[serde(deserialize_with = "text::list")]
    scopes: Vec<String>,
    #[serde(deserialize_with = "text::list")]
    scope: Vec<String>,
    token_url: Option<String>,
    #[serde(deserialize_with = "text::list")]
    allow_origins: Vec<String>,
    pass_foreign_origins: bool,
    if_not_present: bool,
    #[serde(deserialize_with = "text::duration")]
    refresh_ahead: Duration,
    jitter: f32,
    #[serde(deserialize_with = "text::duration")]
    expiry_margin: Duration,
    #[serde(deserialize_with = "text::duration")]
    fetch_timeout: Duration,
    #[serde(deserialize_with = "text::duration")]
    acquire_timeout: Duration,
    rate_limit: Option<RateLimitSettings>,
    keep_warm: bool,
    #[serde(deserialize_with = "text::optional")]
    default_organization: Option<String>,
    max_organizations: usize,
    #[serde(deserialize_with = "text::duration")]
    idle_after: Duration,
}
