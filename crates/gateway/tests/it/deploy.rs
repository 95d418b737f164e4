//! The files in `deploy/`, `Dockerfile` and `README.md`, compared with the
//! program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use officernd_simulator::Simulator;
use serde_json::Value;

use crate::child::{Gateway, LOCATIONS, gateway};
use crate::folder::Folder;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The words of a text that begin like this.
fn words(text: &str, prefixes: &[&str]) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !part(c))
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

const METRICS: [&str; 3] = ["officernd_auth_", "officernd_gateway_", "http_server_"];

/// The metrics that files name, and `/metrics` of a gateway that has had a
/// request, a store and nothing else.
#[tokio::test]
async fn every_metric_that_the_files_name_is_there_from_the_start() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("deploy");
    let store = format!("file:{}", folder.path().display());
    let more = [("GATEWAY_STORE", store.as_str())];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
    let fetched = "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"ok\"} 1";
    let metrics = gateway.metrics_with(fetched).await;
    let there = |name: &str| {
        let named = |line: &str| {
            let line = line.trim_start_matches("# TYPE ");
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        metrics.lines().any(named)
    };
    let mut named = 0;
    for file in ["deploy/alerts.yaml", "deploy/dashboard.json", "README.md"] {
        for name in words(&read(file), &METRICS) {
            assert!(there(&name), "{file} names {name}, but not {metrics}");
            named += 1;
        }
    }
    assert!(named >= 20, "{named} names");
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            assert!(!words(target["expr"].as_str().unwrap(), &METRICS).is_empty());
        }
    }
    // A page-wide typo in a label would match nothing, for ever.
    for (name, labels) in [
        ("officernd_gateway_info", ["upstream", "version"]),
        ("officernd_auth_refreshes_total", ["cause", "outcome"]),
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(
            labels
                .iter()
                .all(|label| line.contains(&format!("{label}=\"")))
        );
    }
}

/// A misspelled variable in a manifest would only show in production.
#[test]
fn every_variable_that_the_files_set_is_a_setting() {
    for file in [
        "Dockerfile",
        "deploy/kubernetes.yaml",
        "deploy/officernd-gateway.service",
        "README.md",
    ] {
        let names = words(&read(file), &["GATEWAY_", "OFFICERND_"]);
        // What the example program reads, and the file itself.
        let others = ["OFFICERND_API", "GATEWAY_CONFIG"];
        let names: Vec<_> = names
            .iter()
            .filter(|name| !others.contains(&name.as_str()) && !name.ends_with('_'))
            .collect();
        assert!(!names.is_empty(), "{file}");
        for name in names {
            let mut command = gateway();
            command.env(name, "?");
            let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
            assert!(!said.contains("is not a setting"), "{file}: {said}");
        }
    }
}
