//! Decides which origins may see a token.
//!
//! The check is part of the layer that adds the header, so that it also holds
//! for the requests of a redirect layer above.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::{ConfigError, Error, ErrorKind};

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
        let api_host = |host: &str| Pattern {
            https: true,
            host: host.to_owned(),
            wildcard: false,
            port: 443,
        };
        Self {
            patterns: API_HOSTS.map(api_host).to_vec(),
            any_https: false,
        }
    }
}

impl OriginPolicy {
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

    /// Checks whether a request to a URI of these parts may carry a token.
    ///
    /// Compares OfficeRnD's own host first: it is always allowed, and nearly every request's.
    #[inline(always)]
    pub(crate) fn check(&self, scheme: Option<&str>, authority: Option<&str>) -> Result<(), Error> {
        match (scheme, authority) {
            (Some("https"), Some("app.officernd.com")) => Ok(()),
            _ => self.check_listed(scheme, authority),
        }
    }

    /// Does the same without the exception for OfficeRnD's own host.
    #[inline(never)]
    fn check_listed(&self, scheme: Option<&str>, authority: Option<&str>) -> Result<(), Error> {
        let (scheme, authority) = match (scheme, authority) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            // Origin-form and `*`: the inner service knows where that goes.
            (None, None) => return Ok(()),
            (None, Some(authority)) => {
                return Err(refusal("", authority, Some("names no scheme")));
            }
            (Some(scheme), None) => return Err(refusal(scheme, "", Some("has no host"))),
        };
        let Some(https) = is_https(scheme) else {
            return Err(refusal(scheme, authority, None));
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
            Err(flaw) => return Err(refusal(scheme, authority, Some(flaw))),
        };
        let port = port.unwrap_or(default_port(https));
        if (https && self.any_https) || listed(host, port) {
            Ok(())
        } else {
            Err(refusal(scheme, authority, None))
        }
    }
}

/// One allowed origin, in lower case: the host of a request is compared without case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    https: bool,
    /// With `wildcard`, the suffix from its dot on: `.officernd.com`.
    host: String,
    wildcard: bool,
    port: u16,
}

const FORMS: &str = "write \"https://host\", \"https://host:port\", \"https://*.domain\" or, \
                     for loopback only, \"http://127.0.0.1:port\"";

impl Pattern {
    /// Reads an origin as it stands in settings.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::read(text).map_err(|flaw| {
            let problem = format!("\"{}\" {flaw}: {FORMS}", Redacted(text));
            ConfigError::setting("allow_origins", problem)
        })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        let https = is_https(scheme).ok_or("is neither https nor http")?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '\\', '?', '#']) {
            return Err("has more than scheme, host and port");
        }
        let (host, port) = split(authority)?;
        if port == Some(0) {
            return Err("has a port that does not exist");
        }
        let (domain, wildcard) = match host.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (host, false),
        };
        if !domain.is_ascii() {
            return Err("has a host that is not ASCII (its xn-- form is)");
        }
        if domain.contains('*') {
            return Err("has a * that is not its whole first label");
        }
        let ipv6 = unbracket(domain).is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        // `*.0.0.1` would match 127.0.0.1, which is no subdomain of anything.
        let numeric = domain.rsplit('.').next().is_some_and(starts_with_digit);
        if wildcard && (ipv6 || numeric) {
            return Err("has a * before an IP address");
        }
        if !ipv6 && !is_name(domain) {
            return Err("has a host that is none");
        }
        if !https && (wildcard || !is_loopback(host)) {
            return Err(
                "is plain http to another machine, which would show the token to the network",
            );
        }
        Ok(Self {
            https,
            host: host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase(),
            wildcard,
            port: port.unwrap_or(default_port(https)),
        })
    }

    /// Returns whether this origin is one of them. The host need not be checked before:
    /// what matches is a sound host without user info and port.
    fn matches(&self, https: bool, host: &str, port: u16) -> bool {
        if self.https != https || self.port != port {
            return false;
        }
        if !self.wildcard {
            return same(host, &self.host);
        }
        let Some(cut) = host.len().checked_sub(self.host.len()) else {
            return false;
        };
        // The names in front are checked too: a client that reads `a;b` or `a\b`
        // as the end of the host would send the token to `a`.
        host.split_at_checked(cut)
            .is_some_and(|(front, suffix)| same(suffix, &self.host) && is_name(front))
    }
}

/// Says why a request gets no token, without its user info, path and query.
#[cold]
fn refusal(scheme: &str, authority: &str, flaw: Option<&str>) -> Error {
    let scheme = scheme.to_ascii_lowercase();
    // User info ends at the last `@`.
    let place = authority.rsplit('@').next().unwrap_or_default();
    let separator = if scheme.is_empty() { "" } else { "://" };
    let parts = [&scheme, separator, place];
    let origin = OneLine(&parts);
    let loopback = || split(place).is_ok_and(|(host, _)| is_loopback(host));
    let (kind, why) = match (flaw, is_https(&scheme)) {
        (Some(flaw), _) => (ErrorKind::ForeignOrigin, format!("its URI {flaw}")),
        (None, None) => (
            ErrorKind::ForeignOrigin,
            "only https, and http on loopback, can be allowed".to_owned(),
        ),
        (None, Some(false)) if !loopback() => (
            ErrorKind::InsecureOrigin,
            "plain http would show it to the network; use https".to_owned(),
        ),
        (None, Some(https)) => (
            match https {
                true => ErrorKind::ForeignOrigin,
                false => ErrorKind::InsecureOrigin,
            },
            format!("allow_origin(\"{origin}\") allows it"),
        ),
    };
    Error::new(kind, format!("no token goes to {origin}: {why}"))
}

/// A pattern as far as it can be shown. With an `@` in it, any of it may be a
/// password (`https://me:p/w@host`); a path or a query may hold a key.
struct Redacted<'a>(&'a str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if is_https(scheme).is_some() => (scheme, rest),
            _ => ("", self.0),
        };
        let separator = if scheme.is_empty() { "" } else { "://" };
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        let secret = rest.contains('@') || rest.contains("%40");
        let (shown, more) = match (secret, authority.len() < rest.len()) {
            (true, _) => ("", "..."),
            (false, true) => (authority, "/..."),
            (false, false) => (authority, ""),
        };
        write!(f, "{}{more}", OneLine(&[scheme, separator, shown]))
    }
}

/// Text from outside, on one line of bounded length.
struct OneLine<'a>(&'a [&'a str]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars = self.0.iter().flat_map(|part| part.chars());
        chars
            .take(300)
            .try_for_each(|c| write!(f, "{}", c.escape_default()))
    }
}

/// Splits an authority into host and port, or says why two readers might not agree on them.
/// `Authority::port_u16` calls a port that does not parse an absent one.
pub(crate) fn split(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    if authority.contains('@') {
        return Err("carries user info");
    }
    let host_end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end).ok_or("has no host")?;
    let port = match rest.strip_prefix(':') {
        // `u16::from_str` takes a sign.
        Some(digits) if starts_with_digit(digits) => digits.parse().map(Some).ok(),
        Some(_) => None,
        None => rest.is_empty().then_some(None),
    };
    let port = port.ok_or("has a port that does not parse")?;
    if host.is_empty() {
        Err("has no host")
    } else if host.ends_with('.') {
        // `example.com.` is another name to TLS and to cookies than `example.com`.
        Err("has a host that ends in a dot")
    } else {
        Ok((host, port))
    }
}

/// Returns whether a host (IPv6 with or without brackets) is this machine for sure.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = unbracket(host).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns `true` for https, `false` for http, `None` for another scheme.
fn is_https(scheme: &str) -> Option<bool> {
    if same(scheme, "https") {
        Some(true)
    } else if same(scheme, "http") {
        Some(false)
    } else {
        None
    }
}

/// Compares without case. Nearly all text is in lower case, and that compare is one `memcmp`.
fn same(text: &str, lower: &str) -> bool {
    text == lower || text.eq_ignore_ascii_case(lower)
}

const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Returns whether a host is a name or an IPv4 address: labels, none of them empty.
fn is_name(host: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = host.as_bytes().split(|&byte| byte == b'.');
    labels.all(|label| !label.is_empty() && label.iter().all(plain))
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

fn unbracket(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}
