//! Starting, and the commands.

use std::process::Output;

use officernd_simulator::{Fault, Simulator};
use serde_json::Value;

use crate::child::{Gateway, LOCATIONS, gateway, upstream, within};

#[tokio::test]
async fn it_serves_the_api_with_a_token() {
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
    assert_eq!(gateway.get("/nothing").await.0, 404);
    gateway.terminate();
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn neither_address_serves_what_belongs_to_the_other() {
    let simulator = Simulator::start().await.unwrap();
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let (api, admin) = (gateway.addr, gateway.admin);
    for path in [
        "/", "/healthz", "/readyz", "/metrics", "/events", "/page.js",
    ] {
        let response = gateway.http.get(format!("http://{api}{path}")).send();
        assert_eq!(response.await.unwrap().status(), 404, "{path}");
    }
    for path in [LOCATIONS, "/api/", "//api/v2/x", "/%61pi/v2/x"] {
        let response = gateway.http.get(format!("http://{admin}{path}")).send();
        assert_eq!(response.await.unwrap().status(), 404, "{path}");
    }
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

#[test]
fn without_credentials_it_ends_and_names_the_simulator() {
    for arguments in [&[][..], &["check"]] {
        let output = run(&[], arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("officernd-simulator"), "{said}");
    }
}

#[tokio::test]
async fn check_goes_through_every_step() {
    let simulator = Simulator::start().await.unwrap();
    let mut command = gateway();
    Gateway::command(&mut command, &simulator, simulator.url());
    command
        .env("OFFICERND_ORG_SLUG", "simulated-org")
        .arg("check");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within(output).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for step in ["configuration: valid", "lives 3600 s", "scope", "200 OK"] {
        assert!(said.contains(step), "{step} in {said}");
    }
}

#[tokio::test]
async fn check_names_the_step_that_fails_by_its_exit_code() {
    let simulator = Simulator::start().await.unwrap();
    let (url, token_url) = (simulator.url().to_owned(), simulator.token_url());
    let (id, secret) = (simulator.client_id(), simulator.client_secret());
    let check = async |changed: (&str, &str)| {
        let settings = [
            ("OFFICERND_CLIENT_ID", id.as_str()),
            ("OFFICERND_CLIENT_SECRET", secret.as_str()),
            ("OFFICERND_SCOPES", "officernd.api.read"),
            ("OFFICERND_TOKEN_URL", token_url.as_str()),
            ("OFFICERND_ORG_SLUG", "simulated-org"),
            ("GATEWAY_UPSTREAM", url.as_str()),
            changed,
        ];
        let mut command = gateway();
        command.envs(settings).arg("check");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = within(output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains(&secret), "{said}");
        (output.status.code(), said)
    };
    assert_eq!(check(("GATEWAY_BODY_LIMIT", "9")).await.0, Some(0));
    assert_eq!(check(("OFFICERND_JITTER", "9.0")).await.0, Some(2));
    let nowhere = ("OFFICERND_TOKEN_URL", "http://127.0.0.1:1/token");
    assert_eq!(check(nowhere).await.0, Some(3));
    let (code, said) = check(("OFFICERND_CLIENT_SECRET", "wrong")).await;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("client id and secret"), "{said}");
    assert_eq!(check(("OFFICERND_SCOPES", "no.such")).await.0, Some(5));
    simulator.api_faults().next(1, Fault::json(500, "{}"));
    let (code, said) = check(("GATEWAY_BODY_LIMIT", "9")).await;
    assert_eq!(code, Some(6), "{said}");
}

#[tokio::test]
async fn healthcheck_asks_the_admin_address() {
    let simulator = Simulator::start().await.unwrap();
    let refusal = Fault::json(400, r#"{"error":"invalid_scope"}"#);
    simulator.token_faults().always(refusal);
    let gateway = Gateway::start(&simulator, simulator.url(), &[]);
    let admin = gateway.admin.to_string();
    let everywhere = format!("0.0.0.0:{}", gateway.admin.port());
    let check = async |arguments: &'static [&'static str], admin: &str| {
        let mut command = crate::child::gateway();
        command.env("GATEWAY_ADMIN", admin).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output());
        within(output).await.unwrap().unwrap().status.code()
    };
    assert_eq!(check(&["healthcheck"], &admin).await, Some(0));
    assert_eq!(check(&["healthcheck"], &everywhere).await, Some(0));
    assert_eq!(check(&["healthcheck", "ready"], &admin).await, Some(1));
    drop(gateway);
    assert_eq!(check(&["healthcheck"], &admin).await, Some(1));
}

#[tokio::test]
async fn it_shows_no_secret_anywhere() {
    let simulator = Simulator::start().await.unwrap();
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let api = upstream(move |request| {
        let token = request.headers()["authorization"].to_str().unwrap();
        report.send(token["Bearer ".len()..].to_owned()).unwrap();
        async { axum::http::Response::default() }
    })
    .await;
    let gateway = Gateway::start(&simulator, &api, &[]);
    assert_eq!(gateway.get("/api/x").await.0, 200);
    let token = reports.recv().await.unwrap();
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
