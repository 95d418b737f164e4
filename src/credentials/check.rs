//! What a client id, a secret, a scope and a token URL must look like.

use http::Uri;

use super::SCOPE_EXAMPLES;
use crate::error::ConfigError;
use crate::origin;
use crate::syntax;

/// The fields that this crate fills in itself (RFC 6749 sections 2.3.1, 4.4.2).
const OWN_FIELDS: [&str; 4] = ["client_id", "client_secret", "grant_type", "scope"];

/// OfficeRnD's own hosts: below this domain a token request needs a scope.
#[cfg(feature = "reqwest")]
const OFFICERND_DOMAIN: &str = ".officernd.com";

/// Why an id or a secret cannot be used.
pub(super) fn problem_of(credential: &str) -> Option<&'static str> {
    if credential.is_empty() {
        Some("is empty")
    } else if credential.chars().any(char::is_control) {
        Some("has control characters in it (a newline at its end?)")
    } else if credential.trim().is_empty() {
        Some("is blank")
    } else {
        None
    }
}

pub(super) fn credential(name: &'static str, value: &str) -> Result<(), ConfigError> {
    match problem_of(value) {
        Some(problem) => Err(ConfigError::setting(name, problem)),
        None => Ok(()),
    }
}

/// Whether OfficeRnD would refuse a request to this URL for want of a scope.
#[cfg(feature = "reqwest")]
pub(super) fn needs_scope(token_url: &Uri) -> bool {
    let host = token_url.host().unwrap_or_default().to_ascii_lowercase();
    host.ends_with(OFFICERND_DOMAIN)
}

/// The scopes, separated by single spaces.
pub(super) fn scope(scope: &str) -> Result<(), ConfigError> {
    if syntax::valid_scope(scope) {
        return Ok(());
    }
    let problem = format!(
        "{scope:?} has characters that RFC 6749 section 3.3 does not allow: \
         scopes are printable ASCII without quotes and backslashes, \
         separated by spaces, {SCOPE_EXAMPLES}"
    );
    Err(ConfigError::setting("scopes", problem))
}

pub(super) fn form_params(params: &[(String, String)]) -> Result<(), ConfigError> {
    for (at, (name, _)) in params.iter().enumerate() {
        let mut earlier = params.iter().take(at);
        let problem = if name.is_empty() {
            "has no name"
        } else if OWN_FIELDS.contains(&name.as_str()) {
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

pub(super) fn token_url(url: &str) -> Result<Uri, ConfigError> {
    // A URL that is not valid is not shown: it may hold a password.
    let wrong = |problem: &str| Err(ConfigError::setting("token_url", problem));
    if url.contains('#') {
        return wrong("has a fragment; leave out '#' and what follows");
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("is not a URL; write https://host/path");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("is relative; write https://host/path");
    };
    let host = match origin::split(authority.as_str()) {
        Ok((host, _)) => host,
        Err(flaw) => return wrong(flaw),
    };
    match scheme {
        "https" => Ok(uri),
        "http" if origin::is_loopback(host) => Ok(uri),
        "http" => wrong("is plain http, which would show the secret to the network; use https"),
        _ => wrong("is neither https nor http"),
    }
}
