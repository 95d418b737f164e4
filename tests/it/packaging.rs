//! The package, and whether README and manifest describe it truly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names that `src/lib.rs` re-exports for users, with all features.
fn names_at_the_root() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut names = BTreeSet::new();
    let items = text.split(';').filter_map(|item| {
        let at = item.find("\npub use self::")?;
        (!item.contains("#[doc(hidden)]")).then(|| &item[at..])
    });
    for item in items {
        let list = item.rsplit("::").next().unwrap();
        let list = list.trim_matches(['{', '}']).split(',');
        names.extend(list.map(|name| name.trim().to_owned()));
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn the_root_names_what_the_first_pages_need_and_no_more() {
    let names = names_at_the_root();
    let needed = [
        "AccessToken",
        "Allowance",
        "BoxError",
        "Builder",
        "ClientCredentials",
        "ConfigError",
        "Error",
        "ErrorKind",
        "FetchContext",
        "HttpTokenProvider",
        "OfficeRndAuth",
        "OfficeRndAuthLayer",
        "Phase",
        "RetryUnauthorized",
        "Secret",
        "SharedTokenProvider",
        "SkipAuth",
        "StaticToken",
        "TokenCache",
        "TokenProvider",
        "TokenRejected",
        "TokenStatus",
        "provider_fn",
    ];
    for name in needed {
        assert!(names.contains(name), "{name} is not at the root");
    }
    assert!(names.len() <= 27, "{} names: {names:?}", names.len());
}

/// How many crates a feature brings, this one not counted.
fn crates(features: &str) -> usize {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args([
            "--format",
            "{p}",
            "--no-default-features",
            "--features",
            features,
        ])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let names = tree.lines().map(|line| line.trim_end_matches(" (*)"));
    names.collect::<BTreeSet<_>>().len() - 1
}

#[test]
fn the_docs_count_each_features_crates_right() {
    let page = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut counts = BTreeMap::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [feature, _, _, count, ""] = cells[..] else {
            continue;
        };
        let Ok(count) = count.parse::<usize>() else {
            continue;
        };
        let feature = feature.trim_matches('`');
        let features = if feature == "none" { "" } else { feature };
        assert_eq!(crates(features), count, "{feature}");
        counts.insert(feature, count);
    }
    assert!(counts.len() >= 11, "features without a count: {counts:?}");

    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let sentence = format!("({} crates, not {})", counts["none"], counts["rustls"]);
    assert!(readme.contains(&sentence), "README: {sentence}");
}
