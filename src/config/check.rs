//! The ranges of settings.

use std::time::Duration;

use super::Settings;
use crate::error::ConfigError;
use crate::token::MAX_LIFE;

/// How long OfficeRnD's tokens live.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let timeouts = [
        ("fetch_timeout", settings.fetch_timeout),
        ("acquire_timeout", settings.acquire_timeout),
    ];
    let zero = timeouts.iter().find(|(_, timeout)| timeout.is_zero());
    let endless = timeouts.iter().find(|(_, timeout)| *timeout > MAX_LIFE);
    let (name, problem) = if !(0.0..=1.0).contains(&settings.jitter) {
        ("jitter", "is not between 0.0 and 1.0")
    } else if settings.expiry_margin >= TOKEN_LIFE {
        (
            "expiry_margin",
            "is as long as a token lives (3,600 s) or longer; at most a tenth of a life is used, \
             and the default is 10 s",
        )
    } else if settings.refresh_ahead > MAX_LIFE {
        (
            "refresh_ahead",
            "is over 24 h, longer than any token lives; the default is 15 min",
        )
    } else if let Some((name, _)) = zero {
        (*name, "is zero: no token could ever arrive")
    } else if let Some((name, _)) = endless {
        (*name, "is over 24 h: that is no bound")
    } else if settings.max_organizations == 0 {
        ("max_organizations", "is zero: none could be kept")
    } else if settings.idle_after.is_zero() {
        ("idle_after", "is zero: none could be kept")
    } else {
        return Ok(());
    };
    let problem = problem.to_owned();
    Err(ConfigError::Setting { name, problem })
}
