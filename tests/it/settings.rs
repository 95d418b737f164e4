//! Set-up mistakes: each found by `build`, each named.

use std::time::Duration;

use officernd_auth::clock::TokioClock;
use officernd_auth::testing::{ManualClock, ScriptedProvider};
use officernd_auth::{
    Builder, ConfigError, ErrorKind, OfficeRndAuthLayer, RateLimit, Settings, TokenCache,
};

use crate::support::{Stopwatch, s};

fn builder() -> Builder {
    OfficeRndAuthLayer::builder(ScriptedProvider::new())
}

/// The name of the setting that `build` complains about.
fn setting(builder: Builder) -> &'static str {
    match builder.build() {
        Err(ConfigError::Setting { name, problem, .. }) => {
            assert!(!problem.is_empty());
            name
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_origin_that_is_none_is_named_with_what_to_write() {
    let over_cache = OfficeRndAuthLayer::from_cache(TokenCache::new(ScriptedProvider::new()));
    for builder in [builder(), over_cache] {
        // The first of two is named, and a good one after them hides nothing.
        let builder = builder.allow_origin("first").allow_origin("second");
        let builder = builder.allow_origin("https://good.example");
        let error = builder.build().unwrap_err().to_string();
        for part in ["allow_origins ", "\"first\"", "https://host:port"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn a_setting_of_the_cache_over_an_existing_cache_is_an_error() {
    type Set = fn(Builder) -> Builder;
    let cache = TokenCache::new(ScriptedProvider::new());
    let table: [(&str, Set); 8] = [
        ("refresh_ahead", |it| it.refresh_ahead(s(1))),
        ("jitter", |it| it.jitter(0.1)),
        ("expiry_margin", |it| it.expiry_margin(s(1))),
        ("fetch_timeout", |it| it.fetch_timeout(s(1))),
        ("acquire_timeout", |it| it.acquire_timeout(s(1))),
        ("rate_limit", |it| it.rate_limit(RateLimit::unlimited())),
        ("keep_warm", |it| it.keep_warm(false)),
        ("clock", |it| it.clock(TokioClock)),
    ];
    for (wanted, set) in table {
        let builder = OfficeRndAuthLayer::from_cache(cache.clone());
        assert_eq!(setting(set(builder.pass_foreign_origins())), wanted);
    }
    let builder = OfficeRndAuthLayer::from_cache(cache);
    builder.if_not_present().build().unwrap();
}

#[test]
fn a_number_out_of_its_range_is_named() {
    for bad in [f32::NAN, 1.001, -1.0, f32::INFINITY] {
        assert_eq!(setting(builder().jitter(bad)), "jitter", "{bad}");
    }
    for good in [0.0, -0.0, 1.0, f32::MIN_POSITIVE] {
        builder().jitter(good).build().unwrap();
    }
    let (zero, tiny, most) = (Duration::ZERO, Duration::from_nanos(1), Duration::MAX);
    for bad in [zero, most] {
        assert_eq!(setting(builder().fetch_timeout(bad)), "fetch_timeout");
        assert_eq!(setting(builder().acquire_timeout(bad)), "acquire_timeout");
    }
    builder()
        .fetch_timeout(tiny)
        .acquire_timeout(tiny)
        .build()
        .unwrap();
    assert_eq!(setting(builder().refresh_ahead(most)), "refresh_ahead");
    // As long as a token lives.
    for bad in [s(3600), most] {
        assert_eq!(setting(builder().expiry_margin(bad)), "expiry_margin");
    }
    builder().expiry_margin(zero).build().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_longest_settings_that_are_taken_work() {
    let day = s(24 * 60 * 60);
    let layer = OfficeRndAuthLayer::builder(ScriptedProvider::new().life(Duration::MAX))
        .refresh_ahead(day)
        .jitter(1.0)
        .expiry_margin(s(3599))
        .fetch_timeout(day)
        .acquire_timeout(day)
        .keep_warm(true)
        .clock(ManualClock::new())
        .rate_limit(RateLimit::new(u32::MAX, Duration::MAX))
        .build()
        .unwrap();
    let cache = layer.cache();
    let token = cache.token().await.unwrap();
    assert_eq!(token.expires_in(), day);
    assert!(cache.reject(&token));
    assert!(cache.refresh().await.unwrap().generation() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_none_fails_and_does_not_hang() {
    for per in [s(60), Duration::MAX] {
        let builder = builder().rate_limit(RateLimit::new(0, per));
        let layer = builder.build().unwrap();
        let error = layer.cache().token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert_eq!(layer.cache().status().token_requests, 0);
        // Its text too copes with whatever it names.
        assert!(!error.to_string().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_of_the_settings_is_the_one_that_holds() {
    let with_per = r#"{ "rate_limit_requests": 2, "rate_limit_per": "20s" }"#;
    for (settings, wait) in [(with_per, 20), (r#"{ "rate_limit_requests": 2 }"#, 60)] {
        let settings: Settings = serde_json::from_str(settings).unwrap();
        let builder = settings.builder(ScriptedProvider::new());
        let layer = builder.acquire_timeout(s(90)).build().unwrap();
        let start = Stopwatch::start();
        for _ in 0..3 {
            layer.cache().refresh().await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), wait);
    }
}

/// The names and the defaults of README's table.
fn readme() -> Vec<(&'static str, &'static str)> {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| setting | default |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
    let cells = rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        (name, rest.split(" | ").next().unwrap().trim_matches('`'))
    });
    cells.collect()
}

#[test]
fn the_table_in_the_readme_has_every_setting_and_its_default() {
    let defaults = format!("{:?}", Settings::default());
    let rate_limit = format!("{:?}", RateLimit::default());
    let mut shown = Vec::new();
    for (name, default) in readme() {
        shown.push(name);
        match name {
            // Unset, the provider's own: one window for each token URL.
            "rate_limit_requests" => assert!(rate_limit.contains(&format!("requests: {default},"))),
            "rate_limit_per" => assert!(rate_limit.contains(&format!("per: {default},"))),
            "token_url" => assert_eq!(default, "https://identity.officernd.com/oauth/token"),
            // Origins that are allowed without a setting.
            "allow_origins" => assert!(default.contains("https://app.officernd.com")),
            _ if default == "-" => {}
            _ => {
                let text = format!("{{ \"{name}\": \"{default}\" }}");
                let settings: Settings = serde_json::from_str(&text).unwrap();
                assert_eq!(format!("{settings:?}"), defaults, "{name}");
            }
        }
    }
    let error = serde_json::from_str::<Settings>("{ \"nonesuch\": 1 }").unwrap_err();
    let error = error.to_string();
    let known = error.split('`').skip(3).step_by(2);
    // The other name of `scopes`.
    let known: Vec<&str> = known.filter(|name| *name != "scope").collect();
    assert_eq!(shown, known);
}
