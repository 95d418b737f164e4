//! Settings as data: what is read, what is refused, what is never shown.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{ClientCredentials, ConfigError, OfficeRndAuthLayer, Settings};

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
        rate_limit_requests = 3
        rate_limit_per = "30s"
        "#,
    )
    .unwrap();
    assert_eq!(settings.scopes, ["one", "two", "three"]);
    assert_eq!(settings.refresh_ahead, Duration::from_secs(5400));
    assert_eq!(settings.expiry_margin, Duration::from_millis(250));
    assert_eq!(settings.jitter, 0.0);
    assert_eq!(settings.rate_limit_requests, Some(3));
    assert_eq!(settings.rate_limit_per, Some(Duration::from_secs(30)));
    let layer = settings.builder(ScriptedProvider::new());
    let shown = format!("{layer:?}");
    for part in [
        "refresh_ahead: 5400s",
        "jitter: 0.0",
        "expiry_margin: 250ms",
        "fetch_timeout: 2s",
        "acquire_timeout: 60s",
        "keep_warm: true",
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
        ("client_id = 'a'\nclient_secret = 'b'", "scopes is not set"),
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
    assert!(matches!(wrong.layer(), Err(ConfigError::Setting { .. })));
}

#[test]
fn both_names_of_the_scopes_are_one_setting() {
    let settings = toml("scope = 'a b'").unwrap();
    assert_eq!(settings.scopes, ["a", "b"]);
    let error = toml("scopes = ['a', 'b']\nscope = 'c'").unwrap_err();
    assert!(error.to_string().contains("scopes"), "{error}");
}

#[test]
fn numbers_and_booleans_may_be_text() {
    let settings = toml("keep_warm = 'true'\njitter = '0.5'\nrate_limit_requests = '3'");
    let settings = settings.unwrap();
    assert!(settings.keep_warm);
    assert_eq!(settings.jitter, 0.5);
    assert_eq!(settings.rate_limit_requests, Some(3));
    for bad in [
        "keep_warm = '1'",
        "keep_warm = 1",
        "jitter = true",
        "rate_limit_requests = -1",
    ] {
        toml(bad).unwrap_err();
    }
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
    // Nor is one that is in the place of another setting.
    for name in [
        "client_secret_file",
        "token_url",
        "scopes",
        "fetch_timeout",
        "keep_warm",
        "rate_limit_requests",
    ] {
        for bad in ["-31415926", "'hunter2'", "['hunter2', 31415926]"] {
            if let Err(error) = toml(&format!("{name} = {bad}")) {
                let shown = format!("{error} {error:?}");
                let secret = shown.contains("hunter2") || shown.contains("31415926");
                assert!(!secret, "{shown}");
            }
        }
    }
}

#[test]
fn text_over_a_file_is_read_as_the_cookbook_shows() {
    let variables = BTreeMap::from([
        ("client_secret", "31415926"),
        ("refresh_ahead", "5m"),
        ("keep_warm", "true"),
        ("jitter", "0.5"),
    ]);
    let settings: Settings = Figment::from(Toml::string(SOUND))
        .merge(Serialized::globals(variables))
        .extract()
        .unwrap();
    assert_eq!(settings.client_id.as_deref(), Some("client-id"));
    assert_eq!(settings.client_secret.unwrap().expose(), "31415926");
    assert_eq!(settings.refresh_ahead, Duration::from_secs(300));
    assert!(settings.keep_warm);
    assert_eq!(settings.jitter, 0.5);
}

const IN_A_CHILD: &str = "CONFIG_TEST_CHILD";

/// The environment belongs to the process: this test runs itself in a second.
#[test]
fn a_layer_comes_from_the_environment_of_a_pod() {
    if std::env::var_os(IN_A_CHILD).is_some() {
        tracing_subscriber::fmt().with_ansi(false).init();
        let settings = Settings::from_env().unwrap();
        assert_eq!(settings.client_secret.unwrap().expose(), "31415926");
        assert_eq!(settings.rate_limit_requests, Some(2));
        let layer = OfficeRndAuthLayer::from_env().unwrap();
        assert!(
            format!("{layer:?}").contains("fetch_timeout: 2s"),
            "{layer:?}"
        );
        ClientCredentials::from_env().unwrap();
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "config::a_layer_comes_from_the_environment_of_a_pod",
        ])
        .env(IN_A_CHILD, "1")
        .env("OFFICERND_CLIENT_ID", "true")
        .env("OFFICERND_CLIENT_SECRET", "31415926")
        .env("OFFICERND_SCOPES", "one two")
        .env("OFFICERND_FETCH_TIMEOUT", "2s")
        .env("OFFICERND_RATE_LIMIT_REQUESTS", "2")
        .env("OFFICERND_KEEP_WARM", "true")
        // Kubernetes sets these for a Service called officernd.
        .env("OFFICERND_PORT", "tcp://10.0.0.1:80")
        .env("OFFICERND_PORT_80_TCP_PROTO", "tcp")
        .env("OFFICERND_SERVICE_HOST", "10.0.0.1")
        .env("OFFICERND_ORG_SLUG", "acme")
        .env("OFFICERND_REFRESH_AHAED", "5m")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(output.contains("1 passed"), "{output}");
    // Once each time that the environment is read.
    assert_eq!(output.matches("WARN").count(), 3, "{output}");
    assert_eq!(
        output
            .matches("variable=\"OFFICERND_REFRESH_AHAED\"")
            .count(),
        3,
        "{output}"
    );
}
