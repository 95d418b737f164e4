//! The files in `deploy/`, `Dockerfile` and `README.md`, compared with the
//! program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use officernd_simulator::{Fault, Simulator};
use serde_json::Value;

use crate::child::{Gateway, LOCATIONS, gateway, within};
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
        let starts = [
            format!("{name} "),
            format!("{name}{{"),
            format!("# TYPE {name} "),
        ];
        let mut lines = metrics.lines();
        lines.any(|line| starts.iter().any(|start| line.starts_with(start)))
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

/// Each alert on the token fires by its own metric.
#[tokio::test]
async fn alerts_count_what_they_are_about() {
    let simulator = Simulator::start().await.unwrap();
    let refusal = Fault::json(401, r#"{"error":"invalid_client"}"#);
    simulator.token_faults().always(refusal);
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    within(async { while gateway.get(LOCATIONS).await.0 != 503 {} }).await;
    let refused = "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"invalid_client\"}";
    let metrics = gateway.metrics_with(&format!("{refused} 1")).await;
    let value = |series: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("{series} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("officernd_gateway_ready"), 0.0);
    assert_eq!(value("officernd_gateway_token_left_seconds"), 0.0);
    assert!(value("officernd_gateway_consecutive_fetch_failures") >= 1.0);
    assert!(value(refused) >= 1.0);
    assert!(value("officernd_auth_requests_total{outcome=\"failed\"}") >= 1.0);
}

/// A misspelt variable in a manifest would only show in production.
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

/// Service links would fill the environment, and probes come over IPv6 only in some clusters.
#[test]
fn the_pod_needs_neither_service_links_nor_ipv4() {
    let manifest = read("deploy/kubernetes.yaml");
    assert!(manifest.contains("enableServiceLinks: false"));
    assert!(manifest.contains("value: \"[::]:8081\""));
    assert!(read("Dockerfile").contains("GATEWAY_ADMIN=[::]:8081"));
}
