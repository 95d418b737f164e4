//! Checks of a client id, a secret, a scope and a token URL.

use http::Uri;

use super::SCOPE_EXAMPLES;
use crate::error::ConfigError;
use crate::origin;
use crate::syntax;

/// The fields that this crate fills in itself (RFC 6749 sections 2.3.1, 4.4.2).
const OWN_FIELDS: [&str; 4] = ["client_id", "client_secret", "grant_type", "scope"];

/// Returns why an id or a secret cannot be used.
pub(super) fn credential(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        Err("is empty")
    } else if value.chars().any(char::is_control) {
        Err("has control characters in it (a newline at its end?)")
    } else if value.trim().is_empty() {
        Err("is blank")
    } else {
        Ok(())
    }
}

/// Like [`credential`], as an error about the setting of this name.
pub(super) fn setting(name: &'static str, value: &str) -> Result<(), ConfigError> {
    credential(value).map_err(|problem| ConfigError::setting(name, problem))
}

/// Returns `true` for OfficeRnD's own hosts, which refuse a request without a scope.
#[cfg(feature = "reqwest")]
pub(super) fn needs_scope(token_url: &Uri) -> bool {
    let host = token_url.host().unwrap_or_default().to_ascii_lowercase();
    host.ends_with(".officernd.com")
}

/// Checks scopes that are separated by single spaces.
pub(super) fn scope(scope: &str) -> Result<(), ConfigError> {
    if syntax::valid_scope(scope) {
        return Ok(());
    }
    let problem = format!(
        "{scope:?} has characters that RFC 6749 section 3.3 does not allow: scopes are printable \
         ASCII without quotes and backslashes, separated by spaces, {SCOPE_EXAMPLES}"
    );
    Err(ConfigError::setting("scopes", problem))
}

pub(super) fn form_params(params: &[(String, String)]) -> Result<(), ConfigError> {
    for (at, (name, _)) in params.iter().enumerate() {
        let mut earlier = params.iter().take(at);
        let problem = if name.is_empty() {
            "has no name"
        } else if OWN_FIELDS.contains(&&**name) {
            "is filled in by this crate; use new() or scope()"
        } else if earlier.any(|(other, _)| other == name) {
            "is given twice"
        } else {
            continue;
        };
        return Err(ConfigError::setting(
            "form_param",
            format!("{name:?} {problem}"),
        ));
    }
    Ok(())
}

/// Parses a token URL. An error does not show it: it may hold a password.
pub(super) fn token_url(url: &str) -> Result<Uri, ConfigError> {
    parse_token_url(url).map_err(|problem| ConfigError::setting("token_url", problem))
}

fn parse_token_url(url: &str) -> Result<Uri, &'static str> {
    if url.contains('#') {
        return Err("has a fragment; leave out '#' and what follows");
    }
    let uri: Uri = url
        .parse()
        .map_err(|_| "is not a URL; write https://host/path")?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("is relative; write https://host/path");
    };
    let (host, _) = origin::split(authority.as_str())?;
    match scheme {
        "https" => Ok(uri),
        "http" if origin::is_loopback(host) => Ok(uri),
        "http" => Err("is plain http, which would show the secret to the network; use https"),
        _ => Err("is neither https nor http"),
    }
}
