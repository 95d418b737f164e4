//! Which origins get a token, and what the errors contain.

use proptest::prelude::*;

use http::Uri;

use super::*;
use crate::error::ErrorKind::{self, ForeignOrigin, InsecureOrigin};

fn check(policy: &Policy, uri: &Uri) -> Result<bool, Error> {
    let request = http::Request::get(uri.clone()).body(()).unwrap();
    policy.check(&request)
}

fn policy(list: &[&str]) -> Policy {
    let mut policy = Policy::default();
    for origin in list {
        policy.allow(origin).unwrap();
    }
    policy
}

/// Checks URIs separated by whitespace: all are allowed, or all are refused with this kind.
fn assert_all(policy: &Policy, refused: Option<ErrorKind>, uris: &str) {
    for uri in uris.split_whitespace() {
        let checked = check(policy, &uri.parse().unwrap());
        assert_eq!(checked.err().map(|error| error.kind()), refused, "{uri}");
    }
}

#[test]
fn the_default_list_is_the_two_api_hosts_over_https() {
    let policy = policy(&[]);
    let allowed = "
        https://app.officernd.com/api/v2/organizations/x HTTPS://APP.OfficeRnD.com
        https://app.officernd.com:443/ https://hybrid.officernd.com/api/v1/organizations/x
        https://HYBRID.OfficeRnD.com:443 /api/v2 *";
    assert_all(&policy, None, allowed);
    // A customer's member portal, and sites that other companies run.
    let portals = "
        https://customer.officernd.com/ https://members.officernd.com/
        https://help.officernd.com/ https://www.officernd.com/";
    assert_all(&policy, Some(ForeignOrigin), portals);
    // API hosts that a program has to list.
    let api_hosts = "https://staging.officernd.com/ https://identity.officernd.com/";
    assert_all(&policy, Some(ForeignOrigin), api_hosts);
    // The last two have Cyrillic letters in `app` and in `officernd`.
    let similar = "
        https://eu.app.officernd.com/ https://officernd.com/ https://.officernd.com/
        https://.app.officernd.com/ https://a;app.officernd.com/ https://xapp.officernd.com/
        https://xofficernd.com/ https://app.xofficernd.com/
        https://app.officernd.com.evil.example/ https://app.officernd.com./
        https://hybrid.officernd.com./ https://app.officernd.com@evil.example/
        https://me@app.officernd.com/ https://me:pw@app.officernd.com/
        https://xn--pp-6kc.officernd.com/ https://app.xn--fficernd-mbh.com/";
    assert_all(&policy, Some(ForeignOrigin), similar);
    let ports_and_schemes = "
        https://app.officernd.com:8443/ https://APP.OFFICERND.COM:8443/
        https://app.officernd.com:80/ https://app.officernd.com:99999/
        https://app.officernd.com:/ https://app.officernd.com:+443/ app.officernd.com:443
        app.officernd.com wss://app.officernd.com/ https://[::1]/";
    assert_all(&policy, Some(ForeignOrigin), ports_and_schemes);
    let plain = "
        http://app.officernd.com/ http://hybrid.officernd.com/ http://app.officernd.com:443/
        http://127.0.0.1:8080/";
    assert_all(&policy, Some(InsecureOrigin), plain);
    // Not a URI, but a request type may not parse its authority.
    let similar = policy.check_origin(Some("https"), Some("\u{430}pp.officernd.com"));
    assert_eq!(similar.unwrap_err().kind(), ForeignOrigin);
}

#[test]
fn a_wildcard_allows_every_host_below_a_domain() {
    let policy = policy(&["https://*.officernd.com"]);
    let below = "https://customer.officernd.com/ https://a.b.c.OfficeRnD.com:443/";
    assert_all(&policy, None, below);
    let others = "
        https://officernd.com/ https://.officernd.com/ https://a..officernd.com/
        https://a;b.officernd.com/ https://xofficernd.com/
        https://customer.officernd.com.evil.example/ https://customer.officernd.com./
        https://customer.officernd.com:8443/ https://me@customer.officernd.com/";
    assert_all(&policy, Some(ForeignOrigin), others);
    assert_all(
        &policy,
        Some(InsecureOrigin),
        "http://customer.officernd.com/",
    );
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
    let listed = "
        https://app.officernd.com/ https://gateway.example:443/x https://a.b.example:8443
        http://127.0.0.1:8080/x?y http://localhost:80 http://localhost http://[::1]:1/";
    assert_all(&policy, None, listed);
    let foreign = "
        https://a.example https://example:8443 https://x.gateway.example https://127.0.0.1:8080";
    assert_all(&policy, Some(ForeignOrigin), foreign);
    let insecure = "
        http://gateway.example http://127.0.0.1:8081 http://127.0.0.2:8080 http://[::1]
        http://a.localhost";
    assert_all(&policy, Some(InsecureOrigin), insecure);
}

#[test]
fn any_https_allows_only_https_and_only_valid_authorities() {
    let mut policy = policy(&[]);
    policy.any_https = true;
    assert_all(
        &policy,
        None,
        "https://any.example:1234/ https://[2001:db8::1]/",
    );
    let insecure = "http://any.example/ http://localhost/";
    assert_all(&policy, Some(InsecureOrigin), insecure);
    let foreign = "
        https://me@any.example/ https://any.example./ https://any.example:x/ any.example:443";
    assert_all(&policy, Some(ForeignOrigin), foreign);
}

#[cfg(feature = "reqwest")]
#[test]
fn the_url_of_a_reqwest_request_is_checked() {
    let policy = policy(&["http://127.0.0.1:8080"]);
    for (url, allowed) in [
        ("https://app.officernd.com/x", true),
        ("https://app.officernd.com:443/x", true),
        ("http://127.1:8080/", true),
        ("https://app.officernd.com./x", false),
        ("https://\u{430}pp.officernd.com/x", false),
        ("https://customer.officernd.com/x", false),
        ("https://me:pw@app.officernd.com/x", false),
        ("https://app.officernd.com:8443/x", false),
        ("http://app.officernd.com/x", false),
        ("https://evil.example\\.officernd.com/", false),
        ("data:text/plain,x", false),
    ] {
        let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
        assert_eq!(policy.check(&request).is_ok(), allowed, "{url}");
    }
}

#[test]
fn the_error_of_an_invalid_origin_says_why_and_shows_no_secret() {
    for (wanted, origins) in [
        ("has no scheme", "app.example"),
        ("\"...\" has no scheme", "me:hunter2@a.example"),
        ("neither https nor http", "ftp://app.example"),
        ("no host", "https:// https://:443 https:///"),
        (
            "\"https://a.example/...\" has more",
            "https://a.example/hunter2",
        ),
        (
            "\"https://a.example/...\" has more",
            "https://a.example?key=hunter2",
        ),
        ("has more", "https://a.example//"),
        ("\"https://...\" has more", "https://me:hunter2/@a.example"),
        (
            "\"https://...\" has user info",
            "https://me:hunter2@a.example",
        ),
        ("ends in a dot", "https://a.example. https://*."),
        ("invalid host", "https://a..example https://[::g]"),
        ("xn--", "https://bücher.example"),
        (
            "first label",
            "https://* https://a.*.example https://*a.example https://*.*.a",
        ),
        ("IP address", "https://*.0.0.1 https://*.[::1]"),
        (
            "invalid port",
            "https://a: https://a:x https://a:99999 https://a:+1",
        ),
        ("invalid port", "https://[::1 https://[::1]x"),
        ("the port 0", "https://a:0"),
        (
            "would expose the token",
            "http://a.example http://*.localhost",
        ),
        (
            "would expose the token",
            "http://192.168.0.1:80 http://0.0.0.0:80",
        ),
    ] {
        for origin in origins.split(' ') {
            let error = policy(&[]).allow(origin).unwrap_err();
            let message = format!("{error} {error:?}");
            assert!(message.contains(wanted), "{origin:?}: {message}");
            assert!(message.contains("https://*.domain"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
    for origin in ["", "https:// a.example", "https://a.example\n"] {
        let message = policy(&[]).allow(origin).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_refusal_shows_the_origin_and_the_remedy_but_no_secret() {
    for (uri, wanted) in [
        (
            "https://evil.example:8443/k?key=pw",
            "(\"https://evil.example:8443\")",
        ),
        (
            "https://Customer.officernd.com/k",
            "(\"https://Customer.officernd.com\")",
        ),
        (
            "http://127.0.0.1:9/k?key=pw",
            "allow_origin(\"http://127.0.0.1:9\")",
        ),
        ("http://evil.example/k?key=pw", "would expose it"),
        (
            "https://me:pw@evil.example/k",
            "https://evil.example: its URI has user info",
        ),
    ] {
        let message = check(&policy(&[]), &uri.parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(message.contains(wanted), "{message}");
        assert!(
            !message.contains("pw") && !message.contains("/k"),
            "{message}"
        );
    }
    assert_eq!(
        origin("https", "me:pw@a@evil.example"),
        "https://evil.example"
    );
}

#[test]
fn loopback_hosts_are_on_this_machine() {
    for good in "localhost LocalHost 127.0.0.1 127.255.0.9 ::1 [::1]".split(' ') {
        assert!(is_loopback(good), "{good}");
    }
    for bad in " [] [127.0.0.1] 0.0.0.0 127.1 localhost. a.localhost [::]".split(' ') {
        assert!(!is_loopback(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn the_decision_matches_a_naive_model(
        https: bool,
        user in prop::option::of("[a-z]{1,3}(:[a-z]{0,3})?"),
        front in prop::sample::select(vec!["", "app.", "APP.", "hybrid.", "a.", "a.app.", "x"]),
        domain in prop::sample::select(vec![
            "officernd.com", "OFFICERND.com", "xofficernd.com", "any.example", "gate.example", "localhost",
            "127.0.0.1",
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
            https && name == "app.officernd.com" && effective == 443,
            https && name == "hybrid.officernd.com" && effective == 443,
            https && name.ends_with(".any.example") && effective == 443,
            https && name == "gate.example" && effective == 8080,
            !https && name == "localhost" && effective == 80,
        ];
        let wanted = user.is_none() && dot.is_empty() && listed.contains(&true);

        let mut policy = policy(&["https://*.any.example", "https://gate.example:8080", "http://localhost"]);
        let uri: Uri = text.parse().unwrap();
        let verdict = check(&policy, &uri);
        prop_assert_eq!(verdict.is_ok(), wanted, "{}", text);

        // The origin that the error suggests is accepted.
        let message = verdict.err().map(|error| error.to_string()).unwrap_or_default();
        let proposal = message.split("allow_origin(\"").nth(1).and_then(|rest| rest.split('"').next());
        if let Some(proposal) = proposal {
            prop_assert!(policy.allow(proposal).is_ok(), "{}", proposal);
            prop_assert!(check(&policy, &uri).is_ok() || !https, "{}", proposal);
        }
    }
}
