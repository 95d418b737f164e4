//! Says why a request gets no token, without showing its secrets.

use std::fmt;

use super::authority::{is_https, is_loopback, split};
use crate::error::{Error, ErrorKind};

#[cold]
pub(super) fn rejection(scheme: &str, authority: &str, flaw: Option<&str>) -> Error {
    let scheme = scheme.to_ascii_lowercase();
    // User info ends at the last `@`.
    let place = authority.rsplit('@').next().unwrap_or_default();
    let separator = if scheme.is_empty() { "" } else { "://" };
    let parts = [&scheme, separator, place];
    let origin = OneLine(&parts);
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
                OneLine(&[host])
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
pub(super) struct OneLine<'a>(pub(super) &'a [&'a str]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars = self.0.iter().flat_map(|part| part.chars());
        chars
            .take(300)
            .try_for_each(|c| write!(f, "{}", c.escape_default()))
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::super::OriginPolicy;

    #[test]
    fn a_refusal_names_the_origin_and_the_way_out_and_no_more() {
        for (uri, wanted) in [
            (
                "https://evil.example:8443/k?key=pw",
                "allow_origin(\"https://evil.example:8443\")",
            ),
            (
                "https://Customer.officernd.com/k?key=pw",
                "allow_origin(\"https://Customer.officernd.com\")",
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
                .check(uri.scheme_str(), uri.authority().map(|host| host.as_str()))
                .unwrap_err()
                .to_string();
            assert!(message.contains(wanted), "{message}");
            assert!(
                !message.contains("pw") && !message.contains("/k"),
                "{message}"
            );
        }
    }
}
