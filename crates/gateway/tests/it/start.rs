//! Starting, and the commands.

use std::process::Output;

use officernd_simulator::{Fault, Simulator};
use serde_json::Value;

use crate::child::{Gateway, LOCATIONS, gateway, output, until, upstream, within};

#[tokio::test]
async fn each_address_serves_its_own_paths_and_the_api_has_a_token() {
    let simulator = Simulator::start().await.unwrap();
    let more = [("OFFICERND_ORG_SLUG", "simulated-org")];
    let mut gateway = Gateway::start(&simulator, simulator.url(), &more);
    assert_eq!(gateway.get("/healthz").await.0, 200);
    within(async { while gateway.get("/readyz").await.0 != 200 {} }).await;
    let (_, body) = gateway.get("/readyz").await;
    let ready: Value = serde_json::from_str(&body).unwrap();
    let organization = &ready["organizations"][0];
    assert_eq!(organization["organization"], "simulated-org");
    assert_eq!(organization["status"]["generation"], 1);
    let (status, body) = gateway.get(LOCATIONS).await;
    assert_eq!(status, 200);
    assert!(body.contains("Main Street"));

    let fetched = "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"ok\"} 1";
    let metrics = gateway.metrics_with(fetched).await;
    for line in [
        "officernd_auth_requests_total{outcome=\"hit\"} 1",
        "officernd_auth_token_requests_total 1",
        "officernd_gateway_ready 1",
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let (api, admin) = (gateway.addr, gateway.admin);
    for (addr, path) in [
        (api, "/"),
        (api, "/healthz"),
        (api, "/readyz"),
        (api, "/metrics"),
        (admin, LOCATIONS),
        (admin, "/api/"),
        (admin, "//api/v2/x"),
        (admin, "/%61pi/v2/x"),
        (admin, "/nothing"),
    ] {
        let response = gateway.http.get(format!("http://{addr}{path}")).send();
        assert_eq!(response.await.unwrap().status(), 404, "{addr}{path}");
    }
    gateway.terminate();
    assert!(gateway.ended().await.success());
}

pub(crate) fn run(settings: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = gateway();
    command.envs(settings.iter().copied()).args(arguments);
    command.output().unwrap()
}

#[test]
fn it_answers_to_a_command_line() {
    let help = run(&[], &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("healthcheck"));
    let version = run(&[], &["--version"]);
    let expected = format!("officernd-gateway {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
    assert_eq!(run(&[], &["--colour"]).status.code(), Some(2));
}

/// A Service called `gateway` or `officernd` puts these into every pod of its namespace.
#[tokio::test]
async fn variables_that_kubernetes_makes_are_no_settings() {
    let simulator = Simulator::start().await.unwrap();
    let more = [
        ("GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("GATEWAY_SERVICE_PORT", "8080"),
        ("GATEWAY_SERVICE_PORT_HTTP", "8080"),
        ("GATEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("GATEWAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("GATEWAY_PORT_8080_TCP_PROTO", "tcp"),
        ("GATEWAY_PORT_8080_TCP_PORT", "8080"),
        ("GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("OFFICERND_SERVICE_HOST", "10.0.0.2"),
        ("OFFICERND_PORT", "tcp://10.0.0.2:80"),
        ("OFFICERND_PORT_80_TCP_ADDR", "10.0.0.2"),
        ("OFFICERND_GATEWAY_SERVICE_HOST", "10.0.0.3"),
    ];
    let gateway = Gateway::start(&simulator, simulator.url(), &more);
    assert_eq!(gateway.get(LOCATIONS).await.0, 200);
}

#[tokio::test]
async fn the_admin_address_may_be_ipv6() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[("GATEWAY_ADMIN", "[::]:0")]);
    let port = gateway.admin.port();
    let mut hosts = vec!["127.0.0.1"];
    // A kernel without IPv6 gets 0.0.0.0 in its place.
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => hosts.push("[::1]"),
        Err(_) => assert!(gateway.admin.is_ipv4()),
    }
    for host in hosts {
        let probe = gateway.http.get(format!("http://{host}:{port}/healthz"));
        assert_eq!(probe.send().await.unwrap().status(), 200, "{host}");
    }
    let mut command = crate::child::gateway();
    command
        .env("GATEWAY_ADMIN", format!("[::]:{port}"))
        .arg("healthcheck");
    assert_eq!(output(command).await.0, Some(0));
}

#[tokio::test]
async fn without_a_token_callers_probes_page_and_metrics_get_the_reason() {
    let simulator = Simulator::start().await.unwrap();
    let refusal = r#"{"error":"invalid_scope","error_description":"<b>no</b>"}"#;
    simulator.token_faults().always(Fault::json(400, refusal));
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    assert_eq!(gateway.get(LOCATIONS).await.0, 503);
    let response = gateway.fetch(LOCATIONS).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(simulator.api_requests(), 0);
    assert_eq!(gateway.get("/readyz").await.0, 503);
    assert_eq!(gateway.get("/healthz").await.0, 200);

    let response = gateway.fetch("/").await;
    let headers = response.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("script"),
        "{policy}"
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let page = response.text().await.unwrap();
    for there in [
        "not ready",
        ">failing<",
        "scope",
        "color-scheme: light dark",
    ] {
        assert!(page.contains(there), "{there} in {page}");
    }
    for not_there in ["<script", "src=", "url(", "https://", "<b>"] {
        assert!(!page.contains(not_there), "{not_there} in {page}");
    }

    // What the alerts in deploy/ watch.
    let refused = "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"invalid_scope\"}";
    let metrics = gateway.metrics_with(&format!("{refused} 1")).await;
    for series in [
        "officernd_gateway_ready 0",
        "officernd_gateway_token_left_seconds{organization=\"\"} 0",
        "officernd_gateway_consecutive_fetch_failures{organization=\"\"} 1",
        "officernd_auth_requests_total{outcome=\"failed\"} 2",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }

    let admin = gateway.admin.to_string();
    let check = async |arguments: &'static [&'static str]| {
        let mut command = crate::child::gateway();
        command.env("GATEWAY_ADMIN", &admin).args(arguments);
        output(command).await.0
    };
    assert_eq!(check(&["healthcheck"]).await, Some(0));
    assert_eq!(check(&["healthcheck", "ready"]).await, Some(1));
    drop(gateway);
    assert_eq!(check(&["healthcheck"]).await, Some(1));
}

#[tokio::test]
async fn nothing_shows_a_secret_at_any_log_level() {
    for (level, info, debug) in [
        ("warn", false, false),
        ("", true, false),
        ("trace", true, true),
    ] {
        let simulator = Simulator::start().await.unwrap();
        let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let api = upstream(move |request| {
            let token = request.headers()["authorization"].to_str().unwrap();
            report.send(token["Bearer ".len()..].to_owned()).unwrap();
            async { axum::http::Response::default() }
        })
        .await;
        let gateway = Gateway::start(&simulator, &api, &[("RUST_LOG", level)]);
        assert_eq!(gateway.get("/api/x").await.0, 200);
        let token = reports.recv().await.unwrap();
        assert!(token.len() > 10);
        if debug {
            until(|| gateway.said().contains("DEBUG")).await;
        }
        let mut shown = gateway.said();
        assert_eq!(shown.contains("INFO"), info, "{shown}");
        assert_eq!(shown.contains("DEBUG"), debug, "{shown}");
        for path in ["/", "/metrics", "/readyz", "/healthz"] {
            shown.push_str(&gateway.get(path).await.1);
        }
        for there in ["listening on", "<html", "\"phase\"", "officernd_auth_"] {
            assert!(shown.contains(there), "{there} in {shown}");
        }
        for secret in [token, simulator.client_secret(), "Bearer ".to_owned()] {
            assert!(!shown.contains(&secret), "{secret} in {shown}");
        }
    }
}
