//! Decides which origins may see a token.
//!
//! The check is part of the layer that adds the header, so that it also holds
//! for the requests of a redirect layer above.

mod authority;
mod pattern;
mod rejection;
#[cfg(test)]
mod tests;

use self::authority::{default_port, is_https};
pub(crate) use self::authority::{is_loopback, split};
use self::pattern::Pattern;
use self::rejection::rejection;
use crate::error::{ConfigError, Error};

/// OfficeRnD's API hosts, which are always allowed.
///
/// Not `*.officernd.com`: each customer's member portal is a host of that name,
/// and other companies run some of the help and marketing sites.
const API_HOSTS: [&str; 2] = ["app.officernd.com", "hybrid.officernd.com"];

/// The allowed origins. Default: [`API_HOSTS`] over https.
#[derive(Debug, Clone)]
pub(crate) struct OriginPolicy {
    patterns: Vec<Pattern>,
    any_https: bool,
}

impl Default for OriginPolicy {
    fn default() -> Self {
        Self {
            patterns: API_HOSTS.map(Pattern::https).to_vec(),
            any_https: false,
        }
    }
}

impl OriginPolicy {
    /// No origin at all.
    pub(crate) fn empty() -> Self {
        Self {
            patterns: Vec::new(),
            any_https: false,
        }
    }

    /// Adds one origin to the list.
    pub(crate) fn allow(&mut self, text: &str) -> Result<(), ConfigError> {
        let pattern = Pattern::parse(text)?;
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
        Ok(())
    }

    /// Allows every https origin. Plain http stays as listed.
    pub(crate) fn allow_any_https(&mut self) {
        self.any_https = true;
    }

    /// Whether a request to a URI of these parts may carry a token.
    ///
    /// OfficeRnD's own host is always allowed, and is nearly every request's:
    /// it is compared first.
    #[inline(always)]
    pub(crate) fn check(&self, scheme: Option<&str>, authority: Option<&str>) -> Result<(), Error> {
        match (scheme, authority) {
            (Some("https"), Some("app.officernd.com")) => Ok(()),
            _ => self.check_listed(scheme, authority),
        }
    }

    /// The same without the exception for OfficeRnD's own host.
    #[inline(never)]
    pub(crate) fn check_listed(
        &self,
        scheme: Option<&str>,
        authority: Option<&str>,
    ) -> Result<(), Error> {
        let (scheme, authority) = match (scheme, authority) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            // Origin-form and `*`: the inner service knows where that goes.
            (None, None) => return Ok(()),
            (None, Some(authority)) => {
                return Err(rejection(
                    "",
                    authority,
                    Some("names no scheme (authority-form)"),
                ));
            }
            (Some(scheme), None) => return Err(rejection(scheme, "", Some("has no host"))),
        };
        let Some(https) = is_https(scheme) else {
            return Err(rejection(scheme, authority, None));
        };
        let listed = |host, port| {
            let mut patterns = self.patterns.iter();
            patterns.any(|pattern| pattern.matches(https, host, port))
        };
        // An authority that is a listed host as it stands is sound: nearly no
        // request needs its authority taken apart.
        if listed(authority, default_port(https)) {
            return Ok(());
        }
        let (host, port) = match split(authority) {
            Ok(parts) => parts,
            Err(flaw) => return Err(rejection(scheme, authority, Some(flaw))),
        };
        let allowed =
            (https && self.any_https) || listed(host, port.unwrap_or(default_port(https)));
        if allowed {
            Ok(())
        } else {
            Err(rejection(scheme, authority, None))
        }
    }
}

/// Whether two authorities name the same host and port under this scheme.
pub(crate) fn is_same_host(scheme: &str, one: &str, other: &str) -> bool {
    let default = is_https(scheme).map(default_port);
    let (Ok((host, port)), Ok((other_host, other_port))) = (split(one), split(other)) else {
        return false;
    };
    host.eq_ignore_ascii_case(other_host) && port.or(default) == other_port.or(default)
}
