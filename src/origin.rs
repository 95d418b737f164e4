//! Decides by the origin of a request whether it gets the token.
//!
//! The layer that adds the header checks the origin itself, so the check includes the requests of a
//! redirect layer above.

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};

use crate::error::{ConfigError, Error, ErrorKind};
use crate::message::{AuthRequest, skips_auth};

/// OfficeRnD's API hosts, which are always allowed.
///
/// Not `*.officernd.com`: each customer's member portal is a host of that name, and other companies
/// run some of the help and marketing sites.
const API_HOSTS: [&str; 2] = ["app.officernd.com", "hybrid.officernd.com"];

/// Which requests get the token. Default: those to [`API_HOSTS`] over https.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    origins: Vec<Pattern>,
    /// Allows every https origin.
    pub(crate) any_https: bool,
    /// Sends requests to other origins without a token, instead of failing them.
    pub(crate) pass_foreign: bool,
    /// Keeps the `Authorization` header of requests that have one.
    pub(crate) if_not_present: bool,
}

impl Default for Policy {
    fn default() -> Self {
        let api_host = |host: &str| Pattern {
            https: true,
            host: host.to_owned(),
            wildcard: false,
            port: 443,
        };
        Self {
            origins: API_HOSTS.map(api_host).to_vec(),
            any_https: false,
            pass_foreign: false,
            if_not_present: false,
        }
    }
}

impl Policy {
    /// Parses an origin and adds it to the list.
    pub(crate) fn allow(&mut self, text: &str) -> Result<(), ConfigError> {
        let origin = Pattern::parse(text).map_err(|flaw| {
            let problem = format!("\"{}\" {flaw}: {FORMS}", redacted(text));
            ConfigError::setting("allow_origins", problem)
        })?;
        self.origins.push(origin);
        Ok(())
    }

    /// Returns `true` if this request gets the token, `false` if it is sent unchanged, or why it must
    /// not be sent.
    #[inline(always)]
    pub(crate) fn check<Req: AuthRequest>(&self, request: &Req) -> Result<bool, Error> {
        if skips_auth(request) {
            return Ok(false);
        }
        let origin = match (request.scheme(), request.authority()) {
            // Nearly every request has this origin, which is always allowed.
            (Some("https"), Some("app.officernd.com")) => Ok(()),
            (scheme, authority) => self.check_origin(scheme, authority),
        };
        if let Err(error) = origin.and_then(|()| check_host(request)) {
            return match self.pass_foreign {
                true => Ok(false),
                false => Err(error),
            };
        }
        Ok(!self.if_not_present || !request.headers().contains_key(AUTHORIZATION))
    }

    #[inline(never)]
    fn check_origin(&self, scheme: Option<&str>, authority: Option<&str>) -> Result<(), Error> {
        let foreign = |scheme, authority, why: &str| {
            let kind = ErrorKind::ForeignOrigin;
            Err(refusal(kind, &origin(scheme, authority), why))
        };
        let (scheme, authority) = match (scheme, authority) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            // A path or `*`, without a host: the inner service decides where the request goes.
            (None, None) => return Ok(()),
            (None, Some(authority)) => return foreign("", authority, "its URI has no scheme"),
            (Some(scheme), None) => return foreign(scheme, "", "its URI has no host"),
        };
        let Some(https) = is_https(scheme) else {
            let why = "use https, or http to a loopback host";
            return foreign(scheme, authority, why);
        };
        let (host, port) = match split(authority) {
            Ok(parts) => parts,
            Err(flaw) => return foreign(scheme, authority, &format!("its URI {flaw}")),
        };
        let port = port.unwrap_or(default_port(https));
        let mut origins = self.origins.iter();
        if https && self.any_https || origins.any(|origin| origin.matches(https, host, port)) {
            return Ok(());
        }
        let origin = origin(scheme, authority);
        let kind = match https {
            true => ErrorKind::ForeignOrigin,
            false => ErrorKind::InsecureOrigin,
        };
        let why = match https || is_loopback(host) {
            true => &format!("allow_origin(\"{origin}\") allows it"),
            false => "plain http would expose it; use https",
        };
        Err(refusal(kind, &origin, why))
    }
}

/// Checks that a `Host` header equals the URI's authority, byte for byte: a proxy may route by the
/// header and send the token to a different host.
///
/// Clients add the header below the layer, so few requests have one here.
#[inline(always)]
fn check_host<Req: AuthRequest>(request: &Req) -> Result<(), Error> {
    let headers = request.headers();
    // For few headers, comparing each name costs less than hashing. `*name == HOST` compares two
    // numbers; a comparison by reference would match on an enum.
    if headers.len() <= 8 && !headers.keys().any(|name| *name == HOST) {
        return Ok(());
    }
    // Without an authority, the inner service decides where the request goes.
    match request.authority() {
        Some(authority) if !is_only_host(headers, authority) => Err(refusal(
            ErrorKind::ForeignOrigin,
            &origin(request.scheme().unwrap_or_default(), authority),
            "its Host header differs from the URI's authority; remove the header",
        )),
        _ => Ok(()),
    }
}

#[inline(always)]
fn is_only_host(headers: &HeaderMap, authority: &str) -> bool {
    // With equal lengths no header has two values, and `get` costs less than `get_all`.
    if headers.len() == headers.keys_len() {
        return headers.get(HOST).is_none_or(|host| host == authority);
    }
    headers.get_all(HOST).iter().all(|host| host == authority)
}

/// Creates the error of a request that must not get the token.
#[cold]
fn refusal(kind: ErrorKind, origin: &str, why: &str) -> Error {
    Error::new(kind, format!("no token goes to {origin}: {why}"))
}

/// Returns the origin of a request for a message, without user info, which ends at the last `@`.
fn origin(scheme: &str, authority: &str) -> String {
    let separator = if scheme.is_empty() { "" } else { "://" };
    let host = authority.rsplit('@').next().unwrap_or_default();
    one_line(&format!("{scheme}{separator}{host}"))
}

/// Returns a pattern for a message. If it has an `@`, any part may be a password
/// (`https://me:p/w@host`), and a path or a query may contain a key.
fn redacted(text: &str) -> String {
    let (start, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_https(scheme).is_some() => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let shown = if rest.contains('@') || rest.contains("%40") {
        "..."
    } else if authority.len() < rest.len() {
        &format!("{authority}/...")
    } else {
        rest
    };
    one_line(&format!("{start}{shown}"))
}

/// Escapes a string from outside, and cuts it to 300 characters.
fn one_line(text: &str) -> String {
    text.chars()
        .take(300)
        .flat_map(char::escape_default)
        .collect()
}

/// An allowed origin, in lower case.
#[derive(Debug, Clone)]
struct Pattern {
    https: bool,
    /// With `wildcard`, the suffix with its dot: `.officernd.com`.
    host: String,
    wildcard: bool,
    port: u16,
}

const FORMS: &str = "write \"https://host\", \"https://host:port\", \"https://*.domain\" or, \
                     for a loopback host, \"http://127.0.0.1:port\"";

impl Pattern {
    /// Parses an origin, or returns why it is invalid.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        let https = is_https(scheme).ok_or("is neither https nor http")?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '\\', '?', '#']) {
            return Err("has more than scheme, host and port");
        }
        let (host, port) = split(authority)?;
        if port == Some(0) {
            return Err("has the port 0");
        }
        let (domain, wildcard) = match host.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (host, false),
        };
        if !domain.is_ascii() {
            return Err("has a non-ASCII host; use its xn-- form");
        }
        if domain.contains('*') {
            return Err("may use * only as the complete first label");
        }
        let ipv6 = unbracket(domain).is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        // `*.0.0.1` would match 127.0.0.1.
        let numeric = domain.rsplit('.').next().is_some_and(starts_with_digit);
        if wildcard && (ipv6 || numeric) {
            return Err("has a * before an IP address");
        }
        if !ipv6 && !is_name(domain) {
            return Err("has an invalid host");
        }
        if !https && (wildcard || !is_loopback(host)) {
            return Err("is plain http to a different machine, which would expose the token");
        }
        Ok(Self {
            https,
            host: host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase(),
            wildcard,
            port: port.unwrap_or(default_port(https)),
        })
    }

    /// Returns `true` if the pattern allows this origin.
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
        // The labels before the suffix are checked too: a client that ends the host at the `;` of
        // `a;b` or the `\` of `a\b` would send the token to `a`.
        host.split_at_checked(cut)
            .is_some_and(|(front, suffix)| same(suffix, &self.host) && is_name(front))
    }
}

/// Splits an authority into host and port, or returns why it could be read in two ways.
/// `Authority::port_u16` would read an invalid port as none.
pub(crate) fn split(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    if authority.contains('@') {
        return Err("has user info");
    }
    let host_end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end).ok_or("has no host")?;
    let port = match rest.strip_prefix(':') {
        // `u16::from_str` accepts a sign.
        Some(digits) if starts_with_digit(digits) => digits.parse().map(Some).ok(),
        Some(_) => None,
        None => rest.is_empty().then_some(None),
    };
    let port = port.ok_or("has an invalid port")?;
    if host.is_empty() {
        Err("has no host")
    } else if host.ends_with('.') {
        // TLS and cookies distinguish `example.com.` from `example.com`.
        Err("has a host that ends in a dot")
    } else {
        Ok((host, port))
    }
}

/// Returns `true` for a loopback host: `localhost` or an IP address, IPv6 with or without brackets.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = unbracket(host).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns `true` for https, `false` for http, and `None` for other schemes.
fn is_https(scheme: &str) -> Option<bool> {
    if same(scheme, "https") {
        Some(true)
    } else if same(scheme, "http") {
        Some(false)
    } else {
        None
    }
}

/// Compares without case. Nearly all hosts are in lower case, for which `memcmp` is enough.
fn same(any_case: &str, lower: &str) -> bool {
    any_case == lower || any_case.eq_ignore_ascii_case(lower)
}

const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Returns `true` for a host name or an IPv4 address: labels separated by dots, none of them empty.
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
