//! Settings as data: what is read, what is refused, what is never shown.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use officernd_auth::testing::ScriptedProvider;
use officernd_auth::{ConfigError, Settings};

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
fn what_is_missing_or_wrong_is_named() {
    let id = "client_id = 'a'";
    #[rustfmt::skip]
    let rows = [
        ("".to_owned(), "client_id (or client_id_file) is not set"),
        (id.to_owned(), "client_secret (or client_secret_file) is not set"),
        (format!("{id}\nclient_secret = 'b'"), "scopes is not set"),
        (format!("{id}\nclient_secret = 'b'\nclient_secret_file = 'c'"), "client_secret and client_secret_file are both set"),
        (format!("{SOUND}\njitter = 7"), "jitter is not"),
        (format!("{SOUND}\nallow_origins = 'x'"), "allow_origins"),
    ];
    for (text, message) in rows {
        let error = toml(&text).unwrap().layer().unwrap_err();
        assert!(matches!(error, ConfigError::Setting { .. }), "{error}");
        assert!(error.to_string().starts_with(message), "{error}");
    }
    toml(SOUND).unwrap().layer().unwrap();
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
        ("rate_limit_requests", "3"),
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
    assert_eq!(settings.rate_limit_requests, Some(3));
    for bad in [
        "keep_warm = '1'",
        "keep_warm = 1",
        "jitter = true",
        "rate_limit_requests = -1",
        "scopes = ['a']\nscope = 'a'",
    ] {
        toml(bad).unwrap_err();
    }
}

const IN_A_CHILD: &str = "CONFIG_TEST_CHILD";

/// Reads the environment and prints the result, in a process that [`from_env`] started.
fn read_in_child() -> bool {
    if std::env::var_os(IN_A_CHILD).is_none() {
        return false;
    }
    tracing_subscriber::fmt().with_ansi(false).init();
    let read = Settings::from_env().and_then(|settings| {
        settings.credentials()?;
        Ok(settings)
    });
    let printed = match read {
        Ok(settings) => {
            let (id, secret) = (&settings.client_id, &settings.client_secret);
            let secret = secret.as_ref().map(|secret| secret.expose());
            format!("id {id:?} secret {secret:?}\n{settings:?}\n")
        }
        Err(error) => format!("error {error}\n"),
    };
    std::io::stdout().write_all(printed.as_bytes()).unwrap();
    true
}

/// Prints what [`Settings::from_env`] makes of sound variables with these in their place; "-" stands for
/// unset. The environment belongs to the process, so this is done in a second one.
fn from_env<V: AsRef<OsStr>>(changes: &[(&str, V)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "--nocapture",
            "config::every_setting_is_read_from_toml_and_from_its_variable",
        ])
        .env_clear()
        .env(IN_A_CHILD, "1")
        .env("OFFICERND_CLIENT_ID", "id")
        .env("OFFICERND_CLIENT_SECRET", "hunter2")
        .env("OFFICERND_SCOPE", "a b");
    for (name, value) in changes {
        let (name, value) = (format!("OFFICERND_{name}"), value.as_ref());
        match value == "-" {
            true => child.env_remove(name),
            false => child.env(name, value),
        };
    }
    let output = child.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("1 passed"), "{printed}");
    printed
}

#[test]
fn every_setting_is_read_from_toml_and_from_its_variable() {
    if read_in_child() {
        return;
    }
    let values = [
        ("CLIENT_ID_FILE", "/id"),
        ("CLIENT_SECRET_FILE", "/secret"),
        ("SCOPES", "a, b\nc"),
        (
            "TOKEN_URL",
            "https://identity-staging.officernd.com/oauth/token",
        ),
        ("ALLOW_ORIGINS", "https://a.example https://*.b.example"),
        ("PASS_FOREIGN_ORIGINS", "true"),
        ("IF_NOT_PRESENT", "true"),
        ("REFRESH_AHEAD", "1h 30m"),
        ("JITTER", "0"),
        ("EXPIRY_MARGIN", "250ms"),
        ("FETCH_TIMEOUT", "2s"),
        ("ACQUIRE_TIMEOUT", "1m"),
        ("RATE_LIMIT_REQUESTS", "3"),
        ("RATE_LIMIT_PER", "2m"),
        ("KEEP_WARM", "true"),
    ];
    let wanted = "Settings { client_id: None, client_id_file: Some(\"/id\"), client_secret: None, \
        client_secret_file: Some(\"/secret\"), scopes: [\"a\", \"b\", \"c\"], \
        token_url: Some(\"https://identity-staging.officernd.com/oauth/token\"), \
        allow_origins: [\"https://a.example\", \"https://*.b.example\"], pass_foreign_origins: true, \
        if_not_present: true, refresh_ahead: 5400s, jitter: 0.0, expiry_margin: 250ms, fetch_timeout: 2s, \
        acquire_timeout: 60s, rate_limit_requests: Some(3), rate_limit_per: Some(120s), keep_warm: true }";
    let unset = [("CLIENT_ID", "-"), ("CLIENT_SECRET", "-"), ("SCOPE", "-")];
    let printed = from_env(&[&values[..], &unset].concat());
    assert!(printed.contains(wanted), "{printed}");

    // Numbers and booleans as such, the rest quoted; a list may be a list or text.
    let line = |(name, value): &(&str, &str)| {
        let bare = value.parse::<f32>().is_ok() || *value == "true";
        let value = if bare {
            (*value).to_owned()
        } else {
            format!("\"\"\"{value}\"\"\"")
        };
        format!("{} = {value}\n", name.to_lowercase())
    };
    let mut text: String = values.iter().map(line).collect();
    let settings = toml(&text).unwrap();
    assert_eq!(format!("{settings:?}"), wanted);
    text = text.replace("scopes = \"\"\"a, b\nc\"\"\"", "scopes = ['a', 'b', 'c']");
    assert_eq!(format!("{:?}", toml(&text).unwrap()), wanted);
    let builder = settings.builder(ScriptedProvider::new());
    let shown = format!("{builder:?}");
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
    builder.build().unwrap();
}

#[test]
fn a_secret_in_the_environment_is_text_even_if_it_looks_like_a_number() {
    for secret in [
        "31415926", "true", "[x]", "1e5", "'quoted'", "\"a\"", " a ", "{}",
    ] {
        let printed = from_env(&[("CLIENT_ID", secret), ("CLIENT_SECRET", secret)]);
        let wanted = format!("id {:?} secret {:?}", Some(secret), Some(secret));
        assert!(printed.contains(&wanted), "{printed}");
    }
}

#[test]
fn a_name_that_is_not_known_is_warned_of_unless_kubernetes_or_a_program_of_ours_sets_it() {
    let printed = from_env(&[
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT_HTTP", "80"),
        ("PORT", "tcp://10.0.0.1:80"),
        ("PORT_80_TCP_PROTO", "tcp"),
        ("GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("ORG_SLUG", "acme"),
        ("API_URL", "https://app.officernd.com"),
        ("REFRESH_AHAED", "5m"),
        ("EXPORT", "1"),
        ("SERVICES", "1"),
        ("SCOPED", ""),
    ]);
    for name in ["REFRESH_AHAED", "EXPORT", "SERVICES", "SCOPED"] {
        assert!(
            printed.contains(&format!("variable=\"OFFICERND_{name}\"")),
            "{printed}"
        );
    }
    assert_eq!(printed.matches("WARN").count(), 4, "{printed}");
    assert!(printed.contains("refresh_ahead: 900s"), "{printed}");
}

#[test]
fn the_two_names_of_the_scopes_must_agree() {
    for (one, other) in [
        ("a b", "b,a"),
        ("a, b", "a  b a"),
        ("-", "a b"),
        ("a b", "-"),
    ] {
        let printed = from_env(&[("SCOPE", one), ("SCOPES", other)]);
        assert!(printed.contains("scopes: [\""), "{printed}");
    }
    let printed = from_env(&[("SCOPE", "a"), ("SCOPES", "a b")]);
    let wanted = "error OFFICERND_SCOPES and OFFICERND_SCOPE are both set and differ";
    assert!(printed.contains(wanted), "{printed}");
}

#[test]
fn each_mistake_names_its_variable() {
    #[rustfmt::skip]
    let rows = [
        ("CLIENT_ID", "-", "CLIENT_ID", "not set"),
        ("CLIENT_ID", "-", "CLIENT_ID", "CLIENT_ID_FILE"),
        ("CLIENT_ID_FILE", "/x", "CLIENT_ID", "OFFICERND_CLIENT_ID_FILE are both set"),
        ("CLIENT_ID", "", "CLIENT_ID", "is set but empty"),
        ("CLIENT_ID", "a\nb", "CLIENT_ID", "control"),
        ("CLIENT_SECRET", "-", "CLIENT_SECRET", "not set"),
        ("CLIENT_SECRET", "-", "CLIENT_SECRET", "CLIENT_SECRET_FILE"),
        ("CLIENT_SECRET", "hunter2\n", "CLIENT_SECRET", "newline"),
        ("CLIENT_SECRET_FILE", "/x", "CLIENT_SECRET", "OFFICERND_CLIENT_SECRET_FILE are both set"),
        ("SCOPE", ",", "SCOPES", "not set"),
        ("SCOPE", "a\"", "SCOPES", "RFC 6749"),
        ("TOKEN_URL", "http://example.com/", "TOKEN_URL", "https"),
        ("ALLOW_ORIGINS", "https://a.example b.example", "ALLOW_ORIGINS", "b.example"),
        ("ALLOW_ORIGINS", "https://a.example b.example", "ALLOW_ORIGINS", "scheme"),
        ("JITTER", "1.5", "JITTER", "between"),
        ("JITTER", "hunter2", "JITTER", "invalid"),
        ("KEEP_WARM", "hunter2", "KEEP_WARM", "true"),
        ("RATE_LIMIT_REQUESTS", "-1", "RATE_LIMIT_REQUESTS", "invalid"),
        ("RATE_LIMIT_PER", "60", "RATE_LIMIT_PER", "unit"),
        ("FETCH_TIMEOUT", "hunter2", "FETCH_TIMEOUT", "unit"),
        ("FETCH_TIMEOUT", "0s", "FETCH_TIMEOUT", "zero"),
    ];
    for (name, value, wanted, part) in rows {
        let printed = from_env(&[(name, value)]);
        let (_, error) = printed.split_once("error ").expect(&printed);
        assert!(
            error.starts_with(&format!("OFFICERND_{wanted} ")),
            "{error}"
        );
        assert!(error.contains(part), "{error}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let printed = from_env(&[("CLIENT_ID", OsStr::from_bytes(b"a\xFF"))]);
        assert!(
            printed.contains("error OFFICERND_CLIENT_ID is not UTF-8"),
            "{printed}"
        );
    }
}
