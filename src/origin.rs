//! Decides which requests carry the token, by their origin.
//!
//! The check is part of the layer that adds the header, so that it also holds for the requests of a
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

/// The rules for which requests carry the token. Default: those to [`API_HOSTS`] over https.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    origins: Vec<Pattern>,
    /// Allows every https origin. Plain http stays as listed.
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
    /// Adds one origin to the list, as it is written in settings.
    pub(crate) fn allow(&mut self, text: &str) -> Result<(), ConfigError> {
        let origin = Pattern::parse(text).map_err(|flaw| {
            let problem = format!("\"{}\" {flaw}: {FORMS}", redacted(text));
            ConfigError::setting("allow_origins", problem)
        })?;
        self.origins.push(origin);
        Ok(())
    }

    /// Returns whether this request carries the token, or is sent as it is.
    ///
    /// # Errors
    ///
    /// Returns why the request must not be sent.
    #[inline(always)]
    pub(crate) fn check<Req: AuthRequest>(&self, request: &Req) -> Result<bool, Error> {
        if skips_auth(request) {
            return Ok(false);
        }
        let origin = match (request.scheme(), request.authority()) {
            // Always allowed, and nearly every request's.
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
            // Origin-form and `*`: the inner service knows where that goes.
            (None, None) => return Ok(()),
            (None, Some(authority)) => return foreign("", authority, "its URI names no scheme"),
            (Some(scheme), None) => return foreign(scheme, "", "its URI has no host"),
        };
        let Some(https) = is_https(scheme) else {
            let why = "only https, and http on loopback, can be allowed";
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
            false => "plain http would show it to the network; use https",
        };
        Err(refusal(kind, &origin, why))
    }
}

/// Checks that a `Host` header is the URI's authority, byte for byte: a server, or a proxy on the
/// way, may route by the header and carry the token to another host.
///
/// Clients add the header below the layer, so nearly no request has one here.
#[inline(always)]
fn check_host<Req: AuthRequest>(request: &Req) -> Result<(), Error> {
    let headers = request.headers();
    // Among so few headers, a look at each name is cheaper than a hash. A constant is compared as
    // a number; by reference it would be as an enum.
    if headers.len() <= 8 && !headers.keys().any(|name| *name == HOST) {
        return Ok(());
    }
    // Without an authority, the inner service knows where the request goes.
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
    // Equal lengths: no header has a second value. `get_all` costs more than `get`.
    if headers.len() == headers.keys_len() {
        return headers.get(HOST).is_none_or(|host| host == authority);
    }
    headers.get_all(HOST).iter().all(|host| host == authority)
}

/// Makes the error of a request that may not carry the token.
#[cold]
fn refusal(kind: ErrorKind, origin: &str, why: &str) -> Error {
    Error::new(kind, format!("no token goes to {origin}: {why}"))
}

/// Returns the origin of a request as it can be shown: without user info, which ends at the last
/// `@`.
fn origin(scheme: &str, authority: &str) -> String {
    let separator = if scheme.is_empty() { "" } else { "://" };
    let place = authority.rsplit('@').next().unwrap_or_default();
    one_line(&format!("{scheme}{separator}{place}"))
}

/// Returns a pattern as far as it can be shown. With an `@` in it, any of it may be a password
/// (`https://me:p/w@host`); a path or a query may hold a key.
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

/// Returns text from outside on one line of bounded length.
fn one_line(text: &str) -> String {
    text.chars()
        .take(300)
        .flat_map(char::escape_default)
        .collect()
}

/// One allowed origin, in lower case: the host of a request is compared without case.
#[derive(Debug, Clone)]
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
    /// Parses an origin, or says what is wrong with it.
    fn parse(text: &str) -> Result<Self, &'static str> {
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

    /// Returns whether the origin is one of this pattern's.
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
