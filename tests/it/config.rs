//! Settings as data: what is read, what is refused, what is never shown.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use officernd_auth::ConfigError;
use officernd_auth::config::Settings;
use officernd_auth::testing::ScriptedProvider;

fn toml(text: &str) -> Result<Settings, Box<figment::Error>> {
    Figment::from(Toml::string(text))
        .extract()
        .map_err(Box::new)
}

const SOUND: &str = r#"
    client_id = "client-id"
    client_secret = "hunter2"
    scopes = ["officernd.api.read"]
"#;

#[test]
fn every_setting_can_be_written_in_toml() {
    let settings = toml(
        r#"
        client_id = "client-id"
        client_secret_file = "/run/secrets/officernd"
        scope = "one, two three"
        token_url = "https://identity.example/oauth/token"
        allow_origins = ["https://a.example", "https://*.b.example"]
        pass_foreign_origins = true
        if_not_present = true
        refresh_ahead = "1h 30m"
        jitter = 0
        expiry_margin = "250ms"
        fetch_timeout = "2s"
        acquire_timeout = "1m"
        keep_warm = true
        default_organization = "acme"
        max_organizations = 20
        idle_after = "2h"
        [rate_limit]
        requests = 3
        per = "30s"
        "#,
    )
    .unwrap();
    assert_eq!(settings.scopes, ["one", "two", "three"]);
    assert_eq!(settings.refresh_ahead, Duration::from_secs(5400));
    assert_eq!(settings.expiry_margin, Duration::from_millis(250));
    assert_eq!(settings.jitter, 0.0);
    let rate_limit = settings.rate_limit.unwrap();
    assert_eq!(
        (rate_limit.requests, rate_limit.per),
        (3, Duration::from_secs(30))
    );
    let resolver = BTreeMap::<String, ScriptedProvider>::new();
    let layer = settings.per_organization(resolver);
    let shown = format!("{layer:?}");
    for part in [
        "refresh_ahead: 5400s",
        "jitter: 0.0",
        "expiry_margin: 250ms",
        "fetch_timeout: 2s",
        "acquire_timeout: 60s",
        "keep_warm: true",
        "default_organization: Some(\"acme\")",
        "max_organizations: 20",
        "idle_after: 7200s",
        "pass_foreign_origins: true",
        "if_not_present: true",
        "b.example",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    layer.build().unwrap();
}

#[test]
fn settings_that_say_only_what_is_needed_make_a_layer() {
    let layer = toml(SOUND).unwrap().layer().unwrap();
    assert!(!layer.cache().status().has_token());
}

#[test]
fn a_name_that_is_not_known_is_refused() {
    let error = toml("refresh_ahaed = \"5m\"").unwrap_err().to_string();
    assert!(error.contains("refresh_ahaed"), "{error}");
    let error = toml("[rate_limit]\nrequest = 5").unwrap_err().to_string();
    assert!(error.contains("`request`"), "{error}");
}

#[test]
fn a_duration_needs_a_unit() {
    for bad in ["5", "\"5\"", "\"5 parsecs\"", "-1", "true", "\"\"", "[1]"] {
        let error = toml(&format!("fetch_timeout = {bad}")).unwrap_err();
        assert!(error.to_string().contains("250ms"), "{bad}: {error}");
    }
}

#[test]
fn what_is_missing_or_doubled_is_named() {
    let problem = |text: &str| {
        let settings = toml(text).unwrap();
        settings.layer().unwrap_err().to_string()
    };
    for (text, message) in [
        ("", "client_id (or client_id_file) is not set"),
        (
            "client_id = 'a'",
            "client_secret (or client_secret_file) is not set",
        ),
        ("client_id = 'a'\nclient_secret = 'b'", "scope is not set"),
        (
            "client_id = 'a'\nclient_secret = 'b'\nclient_secret_file = 'c'",
            "are both set",
        ),
    ] {
        let error = problem(text);
        assert!(error.contains(message), "{error}");
    }
    let wrong = toml(&format!("{SOUND}\njitter = 7")).unwrap().layer();
    assert!(matches!(wrong, Err(ConfigError::Setting { .. })));
    let wrong = toml(&format!("{SOUND}\nallow_origins = 'x'")).unwrap();
    assert!(matches!(wrong.layer(), Err(ConfigError::Origin { .. })));
}

#[test]
fn both_names_of_the_scopes_are_one_setting() {
    let merged = |file: &str, variable: &str| {
        let environment = Toml::string(variable);
        let settings = Figment::from(Toml::string(file)).merge(environment);
        settings
            .extract::<Settings>()
            .map_err(|error| error.to_string())
    };
    let settings = merged("scopes = ['a', 'b']", "scope = 'a b'").unwrap();
    assert_eq!(settings.scopes, ["a", "b"]);
    let error = merged("scopes = ['a', 'b']", "scope = 'c'").unwrap_err();
    assert!(error.contains("scope and scopes are two names"), "{error}");
    assert!(!error.contains("duplicate"), "{error}");
}

#[test]
fn a_default_organization_needs_several_organizations() {
    let settings = toml("default_organization = 'acme'").unwrap();
    let error = settings
        .builder(ScriptedProvider::new())
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("per_organization"), "{error}");
    let none = BTreeMap::<String, ScriptedProvider>::new();
    settings.per_organization(none).build().unwrap();
}

#[test]
fn nothing_secret_is_shown() {
    let text = format!(
        "{SOUND}\ntoken_url = 'https://me:hunter2@host/'\nallow_origins = 'https://me:hunter2@a.example'"
    );
    let settings = toml(&text).unwrap();
    let shown = format!("{settings:?} {settings:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("[redacted]"));
    let builder = settings.builder(ScriptedProvider::new());
    assert!(!format!("{builder:?}").contains("hunter2"), "{builder:?}");
    // A secret that is no text is refused without being shown.
    for bad in ["31415926", "3.1415926", "[31415926]", "['31415926', 1]"] {
        let error = toml(&format!("client_secret = {bad}")).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("1415926"), "{shown}");
        assert!(shown.contains("quotes"), "{shown}");
    }
}

const IN_A_CHILD: &str = "CONFIG_TEST_CHILD";

/// The environment belongs to the process: this test runs itself in a second.
#[test]
fn the_environment_lies_merged() {
    if std::env::var_os(IN_A_CHILD).is_some() {
        let settings: Settings = Figment::new()
            .merge(Toml::string(SOUND))
            .merge(Env::prefixed("OFFICERND_").split("__"))
            .extract()
            .unwrap();
        assert_eq!(settings.client_id.as_deref(), Some("client-id"));
        assert_eq!(settings.client_secret.unwrap().expose(), "from-env");
        assert_eq!(settings.scopes, ["one", "two"]);
        assert_eq!(settings.fetch_timeout, Duration::from_secs(2));
        assert_eq!(settings.rate_limit.unwrap().requests, 2);
        assert!(settings.keep_warm);
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "config::the_environment_lies_merged"])
        .env(IN_A_CHILD, "1")
        .env("OFFICERND_CLIENT_SECRET", "from-env")
        .env("OFFICERND_SCOPES", "one two")
        .env("OFFICERND_FETCH_TIMEOUT", "2s")
        .env("OFFICERND_RATE_LIMIT__REQUESTS", "2")
        .env("OFFICERND_KEEP_WARM", "true")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}
