//! Mistakes in credentials, and sources that change.

use super::*;

fn sound() -> ClientCredentials {
    ClientCredentials::new("id", "secret").scope("officernd.api.read")
}

#[test]
fn each_mistake_has_its_own_error() {
    let table = [
        (sound().scope("a\"b"), "RFC 6749 section 3.3"),
        (sound().scope("é"), "RFC 6749 section 3.3"),
        (sound().scope("a\tb"), "RFC 6749 section 3.3"),
        (sound().form_param("scope", "x"), "filled in by this crate"),
        (
            sound().form_param("a", "1").form_param("a", "2"),
            "given twice",
        ),
        (sound().form_param("", "1"), "no name"),
        (sound().token_url("/oauth/token"), "is relative"),
        (sound().token_url("identity.officernd.com"), "is relative"),
        (sound().token_url(""), "is not a URL"),
        (
            sound().token_url("http://identity.officernd.com/"),
            "plain http",
        ),
        (
            sound().token_url("ftp://identity.officernd.com/"),
            "neither https",
        ),
        (sound().token_url("https://u:hunter2@host/"), "user info"),
        (sound().token_url("https://host:99999/"), "port"),
        (sound().token_url("https://host/#x"), "fragment"),
    ];
    for (credentials, message) in table {
        let error = credentials.check().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("hunter2"));
    }
    for (id, secret, message) in [
        ("", "s", "client_id is empty"),
        (" \u{a0} ", "s", "client_id is blank"),
        ("a\nb", "s", "client_id has control"),
        ("id", "", "client_secret is empty"),
        ("id", "s\n", "newline at its end"),
    ] {
        let error = Loader::new(ClientCredentials::new(id, secret).source).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn plain_http_is_for_this_machine_only() {
    for url in [
        "http://127.0.0.1:8080/oauth/token",
        "http://localhost/t",
        "http://[::1]:1/t",
    ] {
        assert!(sound().token_url(url).check().is_ok(), "{url}");
    }
}

#[test]
fn scopes_are_joined_by_single_spaces() {
    let asked = |credentials: ClientCredentials| credentials.asked_scope();
    assert_eq!(asked(sound().scopes(["a", "b"])).as_deref(), Some("a b"));
    assert_eq!(asked(sound().scope("  a   b ")).as_deref(), Some("a b"));
    assert_eq!(asked(sound().scope(" ")), None);
}

#[test]
fn debug_shows_no_secret_and_no_parameter() {
    let credentials = ClientCredentials::new("id", "hunter2").form_param("audience", "hunter2");
    assert!(!format!("{credentials:?}").contains("hunter2"));
}

#[cfg(feature = "reqwest")]
#[test]
fn officernd_needs_a_scope_and_other_endpoints_do_not() {
    let staging = "https://identity-staging.officernd.com/oauth/token";
    let check = |url: &str| {
        let credentials = ClientCredentials::new("id", "secret").scope(" ");
        credentials.token_url(url).check_scope()
    };
    for url in [TOKEN_URL, staging, "https://IDENTITY.officernd.com/"] {
        let error = check(url).unwrap_err();
        let wanted = matches!(error, ConfigError::Setting { name: "scopes", .. });
        assert!(wanted, "{url}");
        for example in ["flex.community.members.read", "officernd.api.read"] {
            assert!(error.to_string().contains(example), "{error}");
        }
    }
    for url in ["https://gateway.example/token", "http://127.0.0.1:8080/"] {
        check(url).unwrap();
    }
}
