//! What is published, and what is said of it, kept true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The public items of a file: what starts with `pub ` outside tests.
fn items(text: &str) -> Vec<String> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for line in code.lines().map(str::trim) {
        let Some(item) = line.strip_prefix("pub ") else {
            continue;
        };
        let item = item.split(['{', ';', '=']).next().unwrap_or_default();
        // A signature over several lines is known by its name.
        let item = match item.split_once('(') {
            Some((name, rest)) if !rest.contains(')') => name,
            _ => item,
        };
        let kinds = [
            "fn", "async", "const", "struct", "enum", "trait", "type", "mod", "use",
        ];
        let kind = item.split([' ', '<']).next().unwrap_or_default();
        let word = if kinds.contains(&kind) { item } else { "" };
        if !word.is_empty() {
            found.push(word.trim().trim_end_matches(" ->").to_owned());
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `docs/public-api.txt` lists every public item, so that a change of the API
/// is seen in review. `UPDATE_PUBLIC_API=1` writes it anew.
#[test]
fn the_public_api_is_the_one_on_file() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    // Not part of the crate unless it is fuzzed.
    files.retain(|file| !file.ends_with("fuzzing.rs"));
    files.sort();
    let mut listed = String::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let items = items(&fs::read_to_string(&file).unwrap());
        for item in items.into_iter().filter(|item| item != "mod fuzzing") {
            listed.push_str(&format!("{name}: {item}\n"));
        }
    }
    let path = root().join("docs/public-api.txt");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&path, &listed).unwrap();
    }
    let on_file = fs::read_to_string(&path).unwrap();
    let (now, then): (BTreeSet<_>, BTreeSet<_>) =
        (listed.lines().collect(), on_file.lines().collect());
    let new: Vec<_> = now.difference(&then).collect();
    let gone: Vec<_> = then.difference(&now).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}\ngone: {gone:#?}\nUPDATE_PUBLIC_API=1 writes docs/public-api.txt anew"
    );
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
fn the_readme_counts_each_features_crates_right() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("| none"));
    let mut checked = 0;
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, feature, _, _, count, _] = cells[..] else {
            continue;
        };
        let Ok(count) = count.parse::<usize>() else {
            continue;
        };
        let feature = feature.trim_matches('`');
        let features = if feature == "none" { "" } else { feature };
        assert_eq!(crates(features), count, "{feature}");
        checked += 1;
    }
    assert!(
        checked >= 3,
        "the table of features is gone from the README"
    );
}
