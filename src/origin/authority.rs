//! Reads the parts of a URI that name a server.

use std::net::{Ipv4Addr, Ipv6Addr};

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
pub(super) fn same(text: &str, lower: &str) -> bool {
    text == lower || text.eq_ignore_ascii_case(lower)
}

pub(super) const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// A host name or an IPv4 address: labels, none of them empty.
pub(super) fn is_name(host: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = host.as_bytes().split(|&byte| byte == b'.');
    labels.all(|label| !label.is_empty() && label.iter().all(plain))
}

pub(super) fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

pub(super) fn unbracket(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_cannot_leave_the_machine() {
        for good in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.255.0.9",
            "::1",
            "[::1]",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "[]",
            "[127.0.0.1]",
            "0.0.0.0",
            "127.1",
            "localhost.",
            "a.localhost",
            "[::]",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
