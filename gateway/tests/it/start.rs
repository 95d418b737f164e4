//! Starting: without any set-up, with half of one, and as its own check.

use officernd_auth::testing::Simulator;
use serde_json::Value;

use crate::child::{Gateway, LOCATIONS, gateway, upstream, within};

#[tokio::test]
async fn it_runs_against_the_simulator_with_nothing_set() {
    let mut gateway = Gateway::spawn(gateway());
    assert_eq!(gateway.get("/healthz").await.0, 200);
    within(async { while gateway.get("/readyz").await.0 != 200 {} }).await;
    let (status, body) = gateway.get("/readyz").await;
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status.as_u16(), &ready["phase"]), (200, &"fresh".into()));
    let (status, body) = gateway.get(LOCATIONS).await;
    assert_eq!(status, 200);
    assert!(body.contains("Main Street"));

    let (_, metrics) = gateway.get("/metrics").await;
    for line in [
        "officernd_auth_requests_total{outcome=\"hit\"} 1",
        "officernd_auth_refreshes_total{cause=\"cold\",outcome=\"ok\"} 1",
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_eq!(gateway.get("/nothing").await.0, 404);
    gateway.terminate();
    assert!(gateway.ended().await.success());
}

/// What a gateway says that does not start.
fn refusal(settings: &[(&str, &str)]) -> String {
    let output = gateway().envs(settings.iter().copied()).output().unwrap();
    assert!(!output.status.success(), "{settings:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_address_that_others_reach_is_refused() {
    for others in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        assert!(refusal(&[("GATEWAY_LISTEN", others)]).contains("loopback"));
    }
}

#[test]
fn numbers_that_would_let_nothing_through_are_refused() {
    for (name, value) in [
        ("GATEWAY_CONNECTIONS", "0"),
        ("GATEWAY_HEAD_SECONDS", "0"),
        ("GATEWAY_TIMEOUT_SECONDS", "0"),
        ("GATEWAY_BODY_SECONDS", "-1"),
        ("GATEWAY_BODY_LIMIT", "lots"),
        ("GATEWAY_TYPO", "1"),
    ] {
        let said = refusal(&[(name, value)]);
        let what = name.trim_start_matches("GATEWAY_").to_lowercase();
        let named = said.to_lowercase().contains(&what);
        assert!(named || said.contains("_SECONDS"), "{name}: {said}");
    }
}

#[test]
fn half_a_set_up_is_an_error_and_no_reason_to_simulate() {
    let file = std::env::temp_dir().join(format!("gateway-{}.toml", std::process::id()));
    std::fs::write(&file, "scopes = ['officernd.api.read']").unwrap();
    for (name, value) in [
        ("OFFICERND_CLIENT_SECRET", "hunter2"),
        ("OFFICERND_CLIENT_SECRET_FILE", "/nowhere"),
        ("GATEWAY_CONFIG", file.to_str().unwrap()),
        ("GATEWAY_UPSTREAM", "https://app.officernd.com"),
    ] {
        let said = refusal(&[(name, value)]);
        assert!(said.contains("client_id"), "{name}: {said}");
        assert!(!said.contains("hunter2"));
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn an_upstream_that_is_no_origin_is_an_error() {
    let credentials = [
        ("OFFICERND_CLIENT_ID", "id"),
        ("OFFICERND_CLIENT_SECRET", "hunter2"),
        ("OFFICERND_SCOPES", "officernd.api.read"),
    ];
    for upstream in [
        "app.officernd.com",
        "https://*.officernd.com",
        "https://app.officernd.com/base",
        "http://app.officernd.com",
        "",
    ] {
        let mut settings = credentials.to_vec();
        settings.push(("GATEWAY_UPSTREAM", upstream));
        assert!(
            refusal(&settings).contains("GATEWAY_UPSTREAM"),
            "{upstream}"
        );
    }
}

#[test]
fn it_checks_itself_and_ends() {
    let mut command = gateway();
    let output = command.env("GATEWAY_CHECK", "true").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for route in ["/healthz", "/readyz", "/metrics", "/events", "/api/"] {
        assert!(said.contains(route), "{route} in {said}");
    }
}

#[tokio::test]
async fn it_shows_no_secret_anywhere() {
    let simulator = Simulator::start().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let api = upstream(move |request| {
        let token = request.headers()["authorization"].to_str().unwrap();
        tell.send(token["Bearer ".len()..].to_owned()).unwrap();
        async { axum::http::Response::default() }
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    assert_eq!(gateway.get("/api/x").await.0, 200);
    let token = told.recv().await.unwrap();
    assert!(token.len() > 10);

    let mut shown = gateway.said();
    for path in [
        "/",
        "/page.js",
        "/page.css",
        "/metrics",
        "/readyz",
        "/healthz",
    ] {
        shown.push_str(&gateway.get(path).await.1);
    }
    let mut events = gateway.fetch("/events").await;
    let event = within(events.chunk()).await.unwrap().unwrap();
    shown.push_str(&String::from_utf8_lossy(&event));
    for there in ["listening on", "<html", "\"phase\"", "officernd_auth_"] {
        assert!(shown.contains(there), "{there} in {shown}");
    }
    for secret in [token, simulator.client_secret(), "Bearer ".to_owned()] {
        assert!(!shown.contains(&secret), "{secret} in {shown}");
    }
}
