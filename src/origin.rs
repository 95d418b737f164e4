//! Which origins may see a token.
//!
//! The guard stands in the layer that adds the header, so that it also holds
//! for requests that a redirect layer above makes up.

mod pattern;

use std::fmt;
use std::sync::OnceLock;

use self::pattern::{Pattern, default_port, is_https};
pub(crate) use self::pattern::{is_loopback, split};
use crate::error::{ConfigError, Error, ErrorKind};

const FORMS: &str = "write \"https://host\", \"https://host:port\", \"https://*.domain\" or, \
                     for loopback only, \"http://127.0.0.1:port\"";

/// The allowed origins; `https://*.officernd.com` is always one.
#[derive(Debug, Clone)]
pub(crate) struct OriginPolicy {
    patterns: Vec<Pattern>,
    any_https: bool,
    /// As it was written. The list only grows, so it stays allowed.
    first_https: OnceLock<Authority>,
}

/// An authority as it was written, kept in place: no hit allocates, the first
/// included.
#[derive(Debug, Clone)]
struct Authority {
    length: usize,
    text: [u8; 64],
}

impl Authority {
    /// `None` for one too long to keep.
    fn new(authority: &str) -> Option<Self> {
        let mut text = [0; 64];
        let length = authority.len();
        text.get_mut(..length)?
            .copy_from_slice(authority.as_bytes());
        Some(Self { length, text })
    }

    #[inline]
    fn is(&self, authority: &str) -> bool {
        self.text.get(..self.length) == Some(authority.as_bytes())
    }
}

impl Default for OriginPolicy {
    fn default() -> Self {
        Self {
            patterns: vec![Pattern::officernd()],
            any_https: false,
            first_https: OnceLock::new(),
        }
    }
}

impl OriginPolicy {
    /// Adds one origin to the list.
    pub(crate) fn allow(&mut self, text: &str) -> Result<(), ConfigError> {
        let pattern = Pattern::parse(text).map_err(|flaw| ConfigError::Origin {
            problem: format!("\"{}\" {flaw}: {FORMS}", Sanitised(text)),
        })?;
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
        Ok(())
    }

    /// Allows every https origin. Plain http stays as listed.
    pub(crate) fn allow_any_https(&mut self) {
        self.any_https = true;
    }

    /// [`check`](Self::check), at once for the authority that was the first
    /// one allowed: most services ask only one.
    #[inline(always)]
    pub(crate) fn allows(
        &self,
        scheme: Option<&str>,
        authority: Option<&str>,
    ) -> Result<(), Error> {
        if let (Some("https"), Some(text), Some(first)) =
            (scheme, authority, self.first_https.get())
        {
            if first.is(text) {
                return Ok(());
            }
        }
        self.learn(scheme, authority)
    }

    #[inline(never)]
    fn learn(&self, scheme: Option<&str>, authority: Option<&str>) -> Result<(), Error> {
        self.check(scheme, authority)?;
        if let (Some("https"), Some(text), None) = (scheme, authority, self.first_https.get()) {
            if let Some(authority) = Authority::new(text) {
                let _ = self.first_https.set(authority);
            }
        }
        Ok(())
    }

    /// Whether a request to a URI of these parts may carry a token.
    pub(crate) fn check(&self, scheme: Option<&str>, authority: Option<&str>) -> Result<(), Error> {
        let (scheme, authority) = match (scheme, authority) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            // Origin-form and `*`: the inner service knows where that goes.
            (None, None) => return Ok(()),
            (None, Some(authority)) => {
                return Err(refuse(
                    "",
                    authority,
                    Some("names no scheme (authority-form)"),
                ));
            }
            (Some(scheme), None) => return Err(refuse(scheme, "", Some("has no host"))),
        };
        let Some(https) = is_https(scheme) else {
            return Err(refuse(scheme, authority, None));
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
            Err(flaw) => return Err(refuse(scheme, authority, Some(flaw))),
        };
        let allowed =
            (https && self.any_https) || listed(host, port.unwrap_or(default_port(https)));
        if allowed {
            Ok(())
        } else {
            Err(refuse(scheme, authority, None))
        }
    }
}

#[cold]
fn refuse(scheme: &str, authority: &str, flaw: Option<&str>) -> Error {
    let scheme = scheme.to_ascii_lowercase();
    // User info ends at the last `@`.
    let place = authority.rsplit('@').next().unwrap_or_default();
    let separator = if scheme.is_empty() { "" } else { "://" };
    let parts = [&scheme, separator, place];
    let origin = Clean(&parts);
    if let Some(flaw) = flaw {
        let message = format!("no token goes to {origin}: the URI {flaw}");
        return Error::new(ErrorKind::ForeignOrigin, message);
    }
    let host = split(place).map_or(place, |(host, _)| host);
    match is_https(&scheme) {
        Some(true) => Error::new(
            ErrorKind::ForeignOrigin,
            format!("no token goes to {origin}; allow_origin(\"{origin}\") allows it"),
        ),
        Some(false) if is_loopback(host) => Error::new(
            ErrorKind::InsecureOrigin,
            format!(
                "no token goes to {origin} in plain text; allow_origin(\"{origin}\") allows it"
            ),
        ),
        Some(false) => Error::new(
            ErrorKind::InsecureOrigin,
            format!(
                "no token goes to {origin} in plain text: use https, with \
                 allow_origin(\"https://{}\") if that host is not on the list",
                Clean(&[host])
            ),
        ),
        None => Error::new(
            ErrorKind::ForeignOrigin,
            format!(
                "no token goes to {origin}: only https origins, and http ones on loopback, can be allowed"
            ),
        ),
    }
}

/// Text from outside, on one line of bounded length.
struct Clean<'a>(&'a [&'a str]);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars = self.0.iter().flat_map(|part| part.chars());
        chars
            .take(300)
            .try_for_each(|c| write!(f, "{}", c.escape_default()))
    }
}

/// A pattern as far as it can be shown. With an `@` in it, any of it may be a
/// password (`https://me:p/w@host`); a path or a query may hold a key.
struct Sanitised<'a>(&'a str);

impl fmt::Display for Sanitised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if is_https(scheme).is_some() => (scheme, rest),
            _ => ("", self.0),
        };
        let separator = if scheme.is_empty() { "" } else { "://" };
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        let secret = rest.contains('@') || rest.contains("%40");
        let (shown, more) = match (secret, authority.len() < rest.len()) {
            (true, _) => ("", "…"),
            (false, true) => (authority, "/…"),
            (false, false) => (authority, ""),
        };
        write!(f, "{}{more}", Clean(&[scheme, separator, shown]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use http::Uri;

    use super::*;

    impl OriginPolicy {
        fn check_uri(&self, uri: &Uri) -> Result<(), Error> {
            self.check(uri.scheme_str(), uri.authority().map(|host| host.as_str()))
        }
    }

    fn policy(list: &[&str]) -> OriginPolicy {
        let mut policy = OriginPolicy::default();
        for origin in list {
            policy.allow(origin).unwrap();
        }
        policy
    }

    fn kind(policy: &OriginPolicy, uri: &str) -> Option<ErrorKind> {
        policy
            .check_uri(&uri.parse().unwrap())
            .err()
            .map(|error| error.kind())
    }

    #[test]
    fn the_default_list_is_officernd_over_https() {
        use ErrorKind::{ForeignOrigin, InsecureOrigin};
        let policy = policy(&[]);
        let table = [
            ("https://app.officernd.com/api/v2/organizations/x", None),
            ("HTTPS://APP.OfficeRnD.com", None),
            ("https://app.officernd.com:443/", None),
            ("https://a.b.c.officernd.com/", None),
            ("/api/v2", None),
            ("*", None),
            ("https://officernd.com/", Some(ForeignOrigin)),
            ("https://.officernd.com/", Some(ForeignOrigin)),
            ("https://a..officernd.com/", Some(ForeignOrigin)),
            ("https://a;b.officernd.com/", Some(ForeignOrigin)),
            ("https://evilofficernd.com/", Some(ForeignOrigin)),
            (
                "https://app.officernd.com.evil.example/",
                Some(ForeignOrigin),
            ),
            ("https://app.officernd.com./", Some(ForeignOrigin)),
            ("https://app.officernd.com:8443/", Some(ForeignOrigin)),
            ("https://app.officernd.com:99999/", Some(ForeignOrigin)),
            ("https://app.officernd.com:/", Some(ForeignOrigin)),
            ("https://app.officernd.com:+443/", Some(ForeignOrigin)),
            ("https://me@app.officernd.com/", Some(ForeignOrigin)),
            ("https://me:pw@app.officernd.com/", Some(ForeignOrigin)),
            (
                "https://app.officernd.com@evil.example/",
                Some(ForeignOrigin),
            ),
            ("app.officernd.com:443", Some(ForeignOrigin)),
            ("app.officernd.com", Some(ForeignOrigin)),
            ("wss://app.officernd.com/", Some(ForeignOrigin)),
            ("https://[::1]/", Some(ForeignOrigin)),
            ("http://app.officernd.com/", Some(InsecureOrigin)),
            ("http://app.officernd.com:443/", Some(InsecureOrigin)),
            ("http://127.0.0.1:8080/", Some(InsecureOrigin)),
        ];
        for (uri, wanted) in table {
            assert_eq!(kind(&policy, uri), wanted, "{uri}");
        }
    }

    #[test]
    fn allowing_adds_to_the_list() {
        let policy = policy(&[
            "https://Gateway.Example",
            "https://*.example:8443/",
            "http://127.0.0.1:8080",
            "http://LOCALHOST",
            "http://[::1]:1",
        ]);
        for good in [
            "https://app.officernd.com/",
            "https://gateway.example:443/x",
            "https://a.b.example:8443",
            "http://127.0.0.1:8080/x?y",
            "http://localhost:80",
            "http://localhost",
            "http://[::1]:1/",
        ] {
            assert_eq!(kind(&policy, good), None, "{good}");
        }
        for bad in [
            "https://a.example",
            "https://example:8443",
            "https://x.gateway.example",
            "http://gateway.example",
            "https://127.0.0.1:8080",
            "http://127.0.0.1:8081",
            "http://127.0.0.2:8080",
            "http://[::1]",
            "http://a.localhost",
        ] {
            assert!(kind(&policy, bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn any_https_is_https_only_and_still_strict_about_form() {
        let mut policy = policy(&[]);
        policy.allow_any_https();
        for (uri, wanted) in [
            ("https://any.example:1234/", None),
            ("https://[2001:db8::1]/", None),
            ("http://any.example/", Some(ErrorKind::InsecureOrigin)),
            ("http://localhost/", Some(ErrorKind::InsecureOrigin)),
            ("https://me@any.example/", Some(ErrorKind::ForeignOrigin)),
            ("https://any.example./", Some(ErrorKind::ForeignOrigin)),
            ("https://any.example:x/", Some(ErrorKind::ForeignOrigin)),
            ("any.example:443", Some(ErrorKind::ForeignOrigin)),
        ] {
            assert_eq!(kind(&policy, uri), wanted, "{uri}");
        }
    }

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
                "\"https://a.example/…\" has more",
            ),
            ("https://a.example//", "has more"),
            (
                "https://a.example?key=hunter2",
                "\"https://a.example/…\" has more",
            ),
            (
                "https://me:hunter2@a.example",
                "\"https://…\" carries user info",
            ),
            ("https://me:hunter2/@a.example", "\"https://…\" has more"),
            ("me:hunter2@a.example", "\"…\" has no scheme"),
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
            let message = OriginPolicy::default().allow(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{text:?}: {message}");
            assert!(message.contains("https://*.domain"), "{text:?}: {message}");
            assert!(!message.contains("hunter2"), "{text:?}: {message}");
            assert!(!message.contains('\n'), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_refusal_names_the_origin_and_the_way_out_and_no_more() {
        for (uri, wanted) in [
            (
                "https://evil.example:8443/k?key=pw",
                "allow_origin(\"https://evil.example:8443\")",
            ),
            (
                "http://127.0.0.1:9/k?key=pw",
                "allow_origin(\"http://127.0.0.1:9\")",
            ),
            (
                "http://evil.example/k?key=pw",
                "allow_origin(\"https://evil.example\")",
            ),
            (
                "https://me:pw@evil.example/k",
                "https://evil.example: the URI carries user info",
            ),
            (
                "https://me:pw@a@evil.example/k",
                "https://evil.example: the URI",
            ),
        ] {
            // An authority with two `@` may not even be a URI.
            let Ok(uri) = uri.parse::<Uri>() else {
                continue;
            };
            let message = OriginPolicy::default()
                .check_uri(&uri)
                .unwrap_err()
                .to_string();
            assert!(message.contains(wanted), "{message}");
            assert!(
                !message.contains("pw") && !message.contains("/k"),
                "{message}"
            );
        }
    }

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

    #[cfg(feature = "reqwest")]
    #[test]
    fn a_reqwest_url_is_judged_the_same() {
        let policy = policy(&["http://127.0.0.1:8080"]);
        for (url, wanted) in [
            ("https://app.officernd.com/x", true),
            ("https://app.officernd.com:443/x", true),
            ("http://127.1:8080/", true),
            ("https://app.officernd.com./x", false),
            ("https://me:pw@app.officernd.com/x", false),
            ("https://app.officernd.com:8443/x", false),
            ("http://app.officernd.com/x", false),
            ("https://evil.example\\.officernd.com/", false),
            ("data:text/plain,x", false),
        ] {
            let url = reqwest::Url::parse(url).unwrap();
            let verdict = policy.check(Some(url.scheme()), Some(url.authority()));
            assert_eq!(verdict.is_ok(), wanted, "{url}");
        }
    }

    proptest! {
        #[test]
        fn the_decision_is_the_naive_one(
            https: bool,
            user in prop::option::of("[a-z]{1,3}(:[a-z]{0,3})?"),
            front in "([aB]\\.){0,2}",
            domain in prop::sample::select(vec![
                "officernd.com", "OFFICERND.com", "xofficernd.com", "gate.example", "localhost", "127.0.0.1",
            ]),
            dot in prop::sample::select(vec!["", "", "", "."]),
            port in prop::option::of(prop::sample::select(vec![80u32, 443, 8080, 65536, 99999])),
            path in "(/[a-z@:.]{0,6})?",
        ) {
            let host = format!("{front}{domain}");
            let scheme = if https { "https" } else { "http" };
            let mut text = format!("{scheme}://");
            if let Some(user) = &user {
                text += &format!("{user}@");
            }
            text += &format!("{host}{dot}");
            if let Some(port) = port {
                text += &format!(":{port}");
            }
            text += &path;

            let name = host.to_lowercase();
            let effective = port.unwrap_or(if https { 443 } else { 80 });
            let listed = [
                https && name.ends_with(".officernd.com") && effective == 443,
                https && name == "gate.example" && effective == 8080,
                !https && name == "localhost" && effective == 80,
            ];
            let wanted = user.is_none() && dot.is_empty() && listed.contains(&true);

            let mut policy = policy(&["https://gate.example:8080", "http://localhost"]);
            let uri: Uri = text.parse().unwrap();
            let verdict = policy.check_uri(&uri);
            prop_assert_eq!(verdict.is_ok(), wanted, "{}", text);

            // What the error proposes does work.
            let message = verdict.err().map(|error| error.to_string()).unwrap_or_default();
            let proposal = message.split("allow_origin(\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(proposal) = proposal {
                prop_assert!(policy.allow(proposal).is_ok(), "{}", proposal);
                prop_assert!(policy.check_uri(&uri).is_ok() || !https, "{}", proposal);
            }
        }

        #[test]
        fn any_text_gets_an_answer(text in "\\PC*|[a-z@:/.*\\[\\]\\\\%]*", other: String) {
            let mut policy = OriginPolicy::default();
            let _ = policy.allow(&text);
            let _ = policy.allow(&format!("https://{text}"));
            let _ = policy.check(Some(&other), Some(&text));
            let _ = policy.check(Some("http"), Some(&text));
            let _ = policy.check(None, Some(&text));
            let _ = is_loopback(&text);
        }
    }
}
