//! What the published crate brings along: licenses, sources and duplicates. `deny.toml` says the same to `cargo deny`,
//! which also knows the advisories.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licenses that ask for no more than a notice.
const LICENSES: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments);
    let output = command.args(["--locked", "--offline"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// All packages that users of the crate may build, this one included.
fn packages() -> Vec<Value> {
    let target = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let all = ["metadata", "--format-version", "1", "--all-features"];
    let metadata: Value = serde_json::from_str(&cargo(&[&all[..], &target].concat())).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let by_id = |entries: Vec<Value>| -> BTreeMap<String, Value> {
        let id = |entry: &Value| entry["id"].as_str().unwrap().to_owned();
        entries
            .into_iter()
            .map(|entry| (id(&entry), entry))
            .collect()
    };
    let packages = by_id(list(&metadata["packages"]));
    let nodes = by_id(list(&metadata["resolve"]["nodes"]));

    let root = packages
        .iter()
        .find(|(_, package)| package["name"] == "officernd-auth");
    let mut reached = BTreeSet::new();
    let mut open = vec![root.unwrap().0.clone()];
    while let Some(id) = open.pop() {
        let shipped = |dependency: &&Value| {
            let kinds = list(&dependency["dep_kinds"]);
            kinds.iter().any(|kind| kind["kind"] != "dev")
        };
        if reached.insert(id.clone()) {
            let dependencies = list(&nodes[&id]["deps"]);
            let shipped = dependencies.iter().filter(shipped);
            open.extend(shipped.map(|dependency| dependency["pkg"].as_str().unwrap().to_owned()));
        }
    }
    reached.iter().map(|id| packages[id].clone()).collect()
}

#[test]
fn every_dependency_has_a_permissive_license_and_comes_from_the_registry() {
    let packages = packages();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let name = &package["name"];
        let license = package["license"]
            .as_str()
            .unwrap()
            .replace(['(', ')'], "")
            .replace('/', " OR ");
        // Each part of an AND needs one license of ours among its ORs.
        let allowed = license.split(" AND ").all(|part| {
            let mut choices = part.split(" OR ");
            choices.any(|choice| LICENSES.contains(&choice))
        });
        assert!(allowed, "{name}: {license}");
        let registry = Value::from("registry+https://github.com/rust-lang/crates.io-index");
        assert!(
            name == "officernd-auth" || package["source"] == registry,
            "{name}"
        );
    }
}

#[test]
fn the_default_features_bring_no_crate_twice() {
    let target = ["--target", "x86_64-unknown-linux-gnu"];
    let tree = [
        "tree",
        "-p",
        "officernd-auth",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ];
    let tree = cargo(&[&tree[..], &target].concat());
    let lines: BTreeSet<_> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let mut names = BTreeSet::new();
    for line in lines {
        let name = line.split(' ').next().unwrap();
        assert!(names.insert(name), "{line} is there in two versions");
    }
    assert!(names.contains("reqwest"));
}
