//! Mistakes in the configuration.

use crate::folder::Folder;
use crate::start::run;

/// What a gateway writes that does not start.
fn refusal(settings: &[(&str, &str)]) -> String {
    let output = run(settings, &[]);
    assert!(!output.status.success(), "{settings:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn addresses_that_cannot_work_are_refused() {
    for (address, why) in [
        ("0.0.0.0:0", "loopback"),
        ("[::]:0", "loopback"),
        ("192.0.2.1:0", "loopback"),
        // Accepted by the kernel, refused by the check of `Host`.
        ("127.0.0.2:0", "loopback"),
        ("localhost:0", "neither"),
        ("unix:api.sock", "absolute"),
        ("unix:/no/such/folder/api.sock", "cannot listen"),
        ("unix:/dev/null", "something else than a socket"),
    ] {
        let said = refusal(&[
            ("GATEWAY_LISTEN", address),
            ("OFFICERND_CLIENT_ID", "id"),
            ("OFFICERND_CLIENT_SECRET", "hunter2"),
            ("OFFICERND_SCOPES", "officernd.api.read"),
        ]);
        assert!(said.contains(why), "{address}: {said}");
    }
    let both = [
        ("GATEWAY_LISTEN", "127.0.0.1:18080"),
        ("GATEWAY_ADMIN", "0.0.0.0:18080"),
    ];
    assert!(refusal(&both).contains("GATEWAY_ADMIN: uses port 18080 too"));
}

#[test]
fn one_start_names_every_mistake() {
    let folder = Folder::new("mistakes");
    let file = folder.file(
        "gateway.toml",
        r#"
            connections = 0
            colour = "red"
            head_timeout = "soon"
            default_organization = "acme-paris"
            [officernd]
            client_id = "id"
            jitter = 3.0
            refresh_ahed = "5m"
            [organizations."a b"]
            client_id = "id"
            client_secret = "hunter2"
            scopes = "officernd.api.read"
            [organizations.acme]
            client_id = "id"
            client_id_file = "/run/secrets/id"
            client_secret = "hunter2"
            scopes = "officernd.api.read"
            refresh_ahead = "5m"
        "#,
    );
    let said = refusal(&[
        ("GATEWAY_CONFIG", file.as_str()),
        ("GATEWAY_ADMIN", "8081"),
        ("GATEWAY_BODY_TIMEOUT", "0s"),
        ("GATEWAY_BODY_LIMIT", "lots"),
        ("GATEWAY_UPSTREAM", "app.officernd.com"),
        ("GATEWAY_STORE", "memcached://:hunter2@cache"),
        ("OFFICERND_FETCH_TIMEOUT", "0s"),
    ]);
    for mistake in [
        "has 16 mistakes",
        "toml: connections: is not from 1",
        "toml: colour: is not a setting",
        "toml: head_timeout:",
        "default_organization: [organizations.acme-paris] is missing",
        "officernd.client_id: belongs into each",
        "officernd.jitter: jitter is not between",
        "officernd.refresh_ahed: is not a setting",
        "organizations.a b: is no slug",
        "organizations.acme.refresh_ahead: is not one of",
        "organizations.acme: client_id and client_id_file are both set",
        "GATEWAY_ADMIN:",
        "GATEWAY_BODY_TIMEOUT: 0s is not between",
        "GATEWAY_BODY_LIMIT:",
        "GATEWAY_UPSTREAM: is not https://host",
        "GATEWAY_STORE: is none of redis://",
        "OFFICERND_FETCH_TIMEOUT: fetch_timeout is zero",
    ] {
        assert!(said.contains(mistake), "{mistake} in {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_library_s_variables_are_text_and_kubernetes_may_add_its_own() {
    let said = refusal(&[
        ("OFFICERND_CLIENT_ID", "true"),
        ("OFFICERND_CLIENT_SECRET", "31415926"),
        ("OFFICERND_SCOPES", "officernd.api.read"),
        ("OFFICERND_RATE_LIMIT_REQUESTS", "3"),
        ("OFFICERND_JITTER", "0.5"),
        ("OFFICERND_PORT", "tcp://10.0.0.1:80"),
        ("OFFICERND_PORT_80_TCP_PROTO", "tcp"),
        ("OFFICERND_SERVICE_PORT_HTTP", "80"),
        ("OFFICERND_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("GATEWAY_ADMIN", "8081"),
    ]);
    assert!(said.contains("has 1 mistake\n  GATEWAY_ADMIN"), "{said}");
}

#[test]
fn half_a_configuration_is_an_error() {
    let folder = Folder::new("half");
    let file = folder.file(
        "gateway.toml",
        "[officernd]\nscopes = ['officernd.api.read']",
    );
    for (name, value) in [
        ("OFFICERND_CLIENT_SECRET", "hunter2"),
        ("OFFICERND_CLIENT_SECRET_FILE", "/nowhere"),
        ("GATEWAY_CONFIG", file.as_str()),
        ("GATEWAY_UPSTREAM", "https://app.officernd.com"),
        ("GATEWAY_STORE", "redis://127.0.0.1:1"),
    ] {
        let said = refusal(&[(name, value)]);
        assert!(said.contains("client_id"), "{name}: {said}");
        assert!(!said.contains("hunter2"));
    }
    let said = refusal(&[("GATEWAY_CONFIG", "/no/such/file.toml")]);
    assert!(said.contains("/no/such/file.toml"), "{said}");
}

#[test]
fn an_upstream_that_is_no_origin_is_an_error() {
    for upstream in [
        "app.officernd.com",
        "https://*.officernd.com",
        "https://app.officernd.com/base",
        "http://app.officernd.com",
        "",
    ] {
        let said = refusal(&[("GATEWAY_UPSTREAM", upstream)]);
        assert!(said.contains("GATEWAY_UPSTREAM"), "{upstream}: {said}");
    }
}
