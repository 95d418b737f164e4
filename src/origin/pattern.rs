//! One allowed origin, and how the parts of a URI are read.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Lower case, as the host of a request is compared without case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    https: bool,
    /// With `wildcard`, the suffix from its dot on: `.officernd.com`.
    host: String,
    wildcard: bool,
    port: u16,
}

impl Pattern {
    /// `https://*.officernd.com`.
    pub(super) fn officernd() -> Self {
        Self {
            https: true,
            host: ".officernd.com".to_owned(),
            wildcard: true,
            port: 443,
        }
    }

    /// What the text allows, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
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

    /// Whether this origin is one of them. The host need not be checked before:
    /// what matches is a sound host without user info and port.
    pub(super) fn matches(&self, https: bool, host: &str, port: u16) -> bool {
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

/// Whether a host (IPv6 with or without brackets) is this machine for sure.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = unbracket(host).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// The scheme as far as it matters here: https, http (`false`), or another.
pub(super) fn is_https(scheme: &str) -> Option<bool> {
    if same(scheme, "https") {
        Some(true)
    } else if same(scheme, "http") {
        Some(false)
    } else {
        None
    }
}

/// Hosts and schemes have no case; nearly all are written in lower case, and
/// that compare is one `memcmp`.
fn same(text: &str, lower: &str) -> bool {
    text == lower || text.eq_ignore_ascii_case(lower)
}

pub(super) const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Host and port of an authority, or why it has none that two readers would
/// agree on. `Authority::port_u16` calls a port that does not parse an absent one.
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
        Some(digits) if starts_with_digit(digits) => digits.parse().ok(),
        Some(_) => None,
        None if rest.is_empty() => return end_of_host(host).map(|host| (host, None)),
        None => None,
    };
    let port = port.ok_or("has a port that does not parse")?;
    end_of_host(host).map(|host| (host, Some(port)))
}

/// `example.com.` is another name to TLS and to cookies than `example.com`.
fn end_of_host(host: &str) -> Result<&str, &'static str> {
    if host.is_empty() {
        Err("has no host")
    } else if host.ends_with('.') {
        Err("has a host that ends in a dot")
    } else {
        Ok(host)
    }
}

/// A host name or an IPv4 address: labels, none of them empty.
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
