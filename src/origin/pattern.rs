//! One allowed origin.

use std::fmt;
use std::net::Ipv6Addr;

use super::authority::{
    default_port, is_https, is_loopback, is_name, same, split, starts_with_digit, unbracket,
};
use super::rejection::OneLine;
use crate::error::ConfigError;

const FORMS: &str = "write \"https://host\", \"https://host:port\", \"https://*.domain\" or, \
                     for loopback only, \"http://127.0.0.1:port\"";

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
    /// Matches one host over https. The host is in lower case.
    pub(super) fn https(host: &str) -> Self {
        Self {
            https: true,
            host: host.to_owned(),
            wildcard: false,
            port: 443,
        }
    }

    /// Reads an origin as it stands in settings.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::read(text).map_err(|flaw| {
            let problem = format!("\"{}\" {flaw}: {FORMS}", Redacted(text));
            ConfigError::setting("allow_origin", problem)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistaken_pattern_is_named_without_its_secrets() {
        let table = [
            ("", "no scheme"),
            ("app.example", "no scheme"),
            ("ftp://app.example", "neither https nor http"),
            ("https://", "no host"),
            ("https://:443", "no host"),
            ("https:///", "no host"),
            (
                "https://a.example/hunter2",
                "\"https://a.example/...\" has more",
            ),
            ("https://a.example//", "has more"),
            (
                "https://a.example?key=hunter2",
                "\"https://a.example/...\" has more",
            ),
            (
                "https://me:hunter2@a.example",
                "\"https://...\" carries user info",
            ),
            ("https://me:hunter2/@a.example", "\"https://...\" has more"),
            ("me:hunter2@a.example", "\"...\" has no scheme"),
            ("https://a.example.", "ends in a dot"),
            ("https://a..example", "host that is none"),
            ("https:// a.example", "host that is none"),
            ("https://a.example\n", "host that is none"),
            ("https://[::1", "does not parse"),
            ("https://[::g]", "host that is none"),
            ("https://bücher.example", "xn--"),
            ("https://*", "not its whole first label"),
            ("https://a.*.example", "not its whole first label"),
            ("https://*a.example", "not its whole first label"),
            ("https://*.*.example", "not its whole first label"),
            ("https://*.", "ends in a dot"),
            ("https://*.0.0.1", "IP address"),
            ("https://*.[::1]", "IP address"),
            ("https://a.example:", "does not parse"),
            ("https://a.example:x", "does not parse"),
            ("https://a.example:99999", "does not parse"),
            ("https://a.example:+1", "does not parse"),
            ("https://a.example:0", "does not exist"),
            ("https://[::1]x", "does not parse"),
            ("http://a.example", "plain http to another machine"),
            ("http://*.localhost", "plain http to another machine"),
            ("http://192.168.0.1:80", "plain http to another machine"),
            ("http://0.0.0.0:80", "plain http to another machine"),
        ];
        for (text, wanted) in table {
            let error = Pattern::parse(text).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(wanted), "{text:?}: {message}");
            assert!(message.contains("https://*.domain"), "{text:?}: {message}");
            assert!(
                !format!("{message} {error:?}").contains("hunter2"),
                "{text:?}: {message}"
            );
            assert!(!message.contains('\n'), "{text:?}: {message}");
        }
    }
}
