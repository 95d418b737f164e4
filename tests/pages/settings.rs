//! The tables of settings in README and in the docs show the defaults of `config::Settings`.

use std::collections::BTreeMap;
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
        (
            "allow_origin",
            "`https://app.officernd.com`, `https://hybrid.officernd.com`".to_owned(),
        ),
        ("if_not_present", switch(settings.if_not_present)),
        ("refresh_ahead", text(settings.refresh_ahead)),
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

/// The default of each setting in the tables of a source file's docs.
fn documented(source: &str) -> BTreeMap<&str, &str> {
    let rows = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("/// | "));
    let cells = rows.filter_map(|row| row.strip_suffix(" |")?.split_once(" | "));
    cells
        .filter_map(|(name, default)| Some((name.split('`').nth(1)?, default)))
        .collect()
}

#[test]
fn the_docs_show_the_defaults() {
    let settings = Settings::default();
    let durations = [
        ("refresh_ahead", settings.refresh_ahead),
        ("expiry_margin", settings.expiry_margin),
        ("fetch_timeout", settings.fetch_timeout),
        ("acquire_timeout", settings.acquire_timeout),
        ("idle_after", settings.idle_after),
    ];
    let max = settings.max_organizations;
    let others = [
        ("jitter", settings.jitter.to_string()),
        ("keep_warm", format!("`{}`", settings.keep_warm)),
        (
            "max_organizations",
            format!("{},{:03}", max / 1000, max % 1000),
        ),
    ];
    assert_eq!(settings.default_organization, None);
    for (source, count) in [
        (include_str!("../../src/builder/mod.rs"), 11),
        (include_str!("../../src/config.rs"), 17),
    ] {
        let shown = documented(source);
        assert_eq!(shown.len(), count, "{shown:?}");
        for (name, default) in durations {
            let text = shown[name]
                .split(',')
                .next()
                .unwrap()
                .replace(['`', '"'], "");
            assert_eq!(humantime::parse_duration(&text).unwrap(), default, "{name}");
        }
        for (name, default) in &others {
            assert_eq!(
                shown[name].trim_matches('`'),
                default.trim_matches('`'),
                "{name}"
            );
        }
        assert!(shown["default_organization"].starts_with("none"));
    }
}
