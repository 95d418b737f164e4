//! Which origins get a token, and what a refusal says.

use proptest::prelude::*;

use http::Uri;

use super::*;
use crate::error::ErrorKind;

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

fn kind(policy: &Policy, uri: &str) -> Option<ErrorKind> {
    let checked = check(policy, &uri.parse().unwrap());
    checked.err().map(|error| error.kind())
}

#[test]
fn the_default_list_is_the_two_api_hosts_over_https() {
    use ErrorKind::{ForeignOrigin, InsecureOrigin};
    let policy = policy(&[]);
    let table = [
        ("https://app.officernd.com/api/v2/organizations/x", None),
        ("HTTPS://APP.OfficeRnD.com", None),
        ("https://app.officernd.com:443/", None),
        ("https://hybrid.officernd.com/api/v1/organizations/x", None),
        ("https://HYBRID.OfficeRnD.com:443", None),
        ("/api/v2", None),
        ("*", None),
        // A customer's member portal, and sites that other companies run.
        ("https://customer.officernd.com/", Some(ForeignOrigin)),
        ("https://members.officernd.com/", Some(ForeignOrigin)),
        ("https://help.officernd.com/", Some(ForeignOrigin)),
        ("https://www.officernd.com/", Some(ForeignOrigin)),
        // API hosts that a program has to list.
        ("https://staging.officernd.com/", Some(ForeignOrigin)),
        ("https://eu.app.officernd.com/", Some(ForeignOrigin)),
        ("https://identity.officernd.com/", Some(ForeignOrigin)),
        ("https://officernd.com/", Some(ForeignOrigin)),
        ("https://.officernd.com/", Some(ForeignOrigin)),
        ("https://.app.officernd.com/", Some(ForeignOrigin)),
        ("https://a;app.officernd.com/", Some(ForeignOrigin)),
        ("https://xapp.officernd.com/", Some(ForeignOrigin)),
        ("https://xofficernd.com/", Some(ForeignOrigin)),
        ("https://app.xofficernd.com/", Some(ForeignOrigin)),
        // Cyrillic letters in `app` and in `officernd`.
        ("https://xn--pp-6kc.officernd.com/", Some(ForeignOrigin)),
        ("https://app.xn--fficernd-mbh.com/", Some(ForeignOrigin)),
        (
            "https://app.officernd.com.evil.example/",
            Some(ForeignOrigin),
        ),
        ("https://app.officernd.com./", Some(ForeignOrigin)),
        ("https://hybrid.officernd.com./", Some(ForeignOrigin)),
        ("https://app.officernd.com:8443/", Some(ForeignOrigin)),
        ("https://APP.OFFICERND.COM:8443/", Some(ForeignOrigin)),
        ("https://app.officernd.com:80/", Some(ForeignOrigin)),
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
        ("http://hybrid.officernd.com/", Some(InsecureOrigin)),
        ("http://app.officernd.com:443/", Some(InsecureOrigin)),
        ("http://127.0.0.1:8080/", Some(InsecureOrigin)),
    ];
    for (uri, wanted) in table {
        assert_eq!(kind(&policy, uri), wanted, "{uri}");
    }
    // Not a URI, but nothing promises that an authority was parsed as one.
    let look_alike = policy.check_origin(Some("https"), Some("\u{430}pp.officernd.com"));
    assert_eq!(look_alike.unwrap_err().kind(), ForeignOrigin);
}

fn assert_allows(policy: &Policy, good: &[&str], bad: &[&str]) {
    for uri in good {
        assert_eq!(kind(policy, uri), None, "{uri}");
    }
    for uri in bad {
        assert!(kind(policy, uri).is_some(), "{uri}");
    }
}

#[test]
fn a_wildcard_allows_every_host_below_a_domain() {
    let good = [
        "https://customer.officernd.com/",
        "https://a.b.c.OfficeRnD.com:443/",
    ];
    let bad = [
        "https://officernd.com/",
        "https://.officernd.com/",
        "https://a..officernd.com/",
        "https://a;b.officernd.com/",
        "https://xofficernd.com/",
        "https://customer.officernd.com.evil.example/",
        "https://customer.officernd.com./",
        "https://customer.officernd.com:8443/",
        "https://me@customer.officernd.com/",
        "http://customer.officernd.com/",
    ];
    assert_allows(&policy(&["https://*.officernd.com"]), &good, &bad);
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
    let good = [
        "https://app.officernd.com/",
        "https://gateway.example:443/x",
        "https://a.b.example:8443",
        "http://127.0.0.1:8080/x?y",
        "http://localhost:80",
        "http://localhost",
        "http://[::1]:1/",
    ];
    let bad = [
        "https://a.example",
        "https://example:8443",
        "https://x.gateway.example",
        "http://gateway.example",
        "https://127.0.0.1:8080",
        "http://127.0.0.1:8081",
        "http://127.0.0.2:8080",
        "http://[::1]",
        "http://a.localhost",
    ];
    assert_allows(&policy, &good, &bad);
}

#[test]
fn any_https_is_https_only_and_still_strict_about_form() {
    let mut policy = policy(&[]);
    policy.any_https = true;
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

#[cfg(feature = "reqwest")]
#[test]
fn a_reqwest_url_is_checked_the_same() {
    let policy = policy(&["http://127.0.0.1:8080"]);
    for (url, wanted) in [
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
        let verdict = policy.check(&request);
        assert_eq!(verdict.is_ok(), wanted, "{url}");
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
        let error = policy(&[]).allow(text).unwrap_err();
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

#[test]
fn a_refusal_names_the_origin_and_the_way_out_and_no_more() {
    let user_info = "https://evil.example: its URI";
    for (uri, wanted) in [
        (
            "https://evil.example:8443/k?key=pw",
            "(\"https://evil.example:8443\")",
        ),
        (
            "https://Customer.officernd.com/k?key=pw",
            "(\"https://Customer.officernd.com\")",
        ),
        (
            "http://127.0.0.1:9/k?key=pw",
            "allow_origin(\"http://127.0.0.1:9\")",
        ),
        (
            "http://evil.example/k?key=pw",
            "would show it to the network",
        ),
        ("https://me:pw@evil.example/k", user_info),
        ("https://me:pw@a@evil.example/k", user_info),
    ] {
        // An authority with two `@` may not even be a URI.
        let Ok(uri) = uri.parse::<Uri>() else {
            continue;
        };
        let message = check(&policy(&[]), &uri).unwrap_err().to_string();
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

proptest! {
    #[test]
    fn the_decision_is_the_naive_one(
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

        // What the error proposes does work.
        let message = verdict.err().map(|error| error.to_string()).unwrap_or_default();
        let proposal = message.split("allow_origin(\"").nth(1).and_then(|rest| rest.split('"').next());
        if let Some(proposal) = proposal {
            prop_assert!(policy.allow(proposal).is_ok(), "{}", proposal);
            prop_assert!(check(&policy, &uri).is_ok() || !https, "{}", proposal);
        }
    }
}
