//! README's table of settings shows the defaults of `config::Settings`.

use std::time::Duration;

use officernd_auth::config::Settings;

/// As README writes a duration.
fn text(duration: Duration) -> String {
    match duration.as_secs() {
        minutes if minutes >= 120 && minutes % 60 == 0 => format!("{} min", minutes / 60),
        seconds => format!("{seconds} s"),
    }
}

fn switch(on: bool) -> String {
    (if on { "on" } else { "off" }).to_owned()
}

#[test]
fn the_readme_shows_the_defaults() {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| setting | default |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let shown: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").next().unwrap()))
        .collect();

    let settings = Settings::default();
    assert!(settings.allow_origins.is_empty());
    let allowance = format!("{:?}", officernd_auth::Allowance::default());
    assert!(
        allowance.contains('5') && allowance.contains("60s"),
        "{allowance}"
    );
    let defaults = [
        ("allow_origin", "`https://*.officernd.com`".to_owned()),
        (
            "pass_foreign_origins",
            switch(settings.pass_foreign_origins),
        ),
        ("if_not_present", switch(settings.if_not_present)),
        ("refresh_ahead", text(settings.refresh_ahead)),
        ("jitter", settings.jitter.to_string()),
        ("expiry_margin", text(settings.expiry_margin)),
        ("fetch_timeout", text(settings.fetch_timeout)),
        ("acquire_timeout", text(settings.acquire_timeout)),
        ("allowance", "5 per 60 s".to_owned()),
        ("keep_warm", switch(settings.keep_warm)),
    ];
    let defaults: Vec<_> = defaults
        .iter()
        .map(|(name, default)| (*name, &**default))
        .collect();
    assert_eq!(shown, defaults);
}
