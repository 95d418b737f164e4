//! What each program has to do, judged by what it prints and by what the simulator saw.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use officernd_simulator::Fault;

use super::child;
use super::server::Server;

/// A runtime for the server of one test, and the server.
fn start() -> (tokio::runtime::Runtime, Server) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    (runtime, server)
}

/// Runs to the end; what it printed.
fn run(mut program: Command) -> String {
    let output = program.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    printed
}

pub(crate) fn prints_200(test: &str) {
    let (_runtime, server) = start();
    let printed = run(child(test, &server));
    assert!(printed.contains("200 OK"), "{printed}");
    assert_eq!(server.officernd().token_requests(), 1);
    assert_eq!(server.officernd().api_requests(), 1);
    assert_eq!(server.officernd().api_unauthorized(), 0);
}

pub(crate) fn prints_200_over_plain_http(test: &str) {
    let (_runtime, server) = start();
    let mut program = child(test, &server);
    program.env("OFFICERND_API_URL", server.officernd().url());
    let printed = run(program);
    assert!(printed.contains("200 OK"), "{printed}");
    assert_eq!(server.officernd().token_requests(), 1);
    assert_eq!(server.officernd().api_unauthorized(), 0);
}

pub(crate) fn replays_after_a_401(test: &str) {
    let (_runtime, server) = start();
    server.officernd().api_faults().next(1, Fault::Status(401));
    let printed = run(child(test, &server));
    assert!(printed.contains("200 OK"), "{printed}");
    assert_eq!(server.officernd().token_requests(), 2);
    assert_eq!(server.officernd().api_requests(), 2);
}

pub(crate) fn sends_each_token_to_its_own_service(test: &str) {
    let (_runtime, server) = start();
    let printed = run(child(test, &server));
    assert_eq!(printed.matches("200 OK").count(), 2, "{printed}");
    for simulator in [server.officernd(), server.staging()] {
        assert_eq!(simulator.token_requests(), 1);
        assert_eq!(simulator.api_requests(), 1);
    }
}

pub(crate) fn takes_credentials_from_vault(test: &str) {
    let (runtime, server) = start();
    let (id, secret) = (
        server.officernd().client_id(),
        server.officernd().client_secret(),
    );
    let answer = serde_json::json!({"data": {"data": {"client_id": id, "client_secret": secret}}});
    let read = move |headers: axum::http::HeaderMap| async move {
        assert_eq!(headers["x-vault-token"], "hunter2");
        axum::Json(answer)
    };
    let vault = axum::Router::new().route("/v1/secret/data/officernd", axum::routing::get(read));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let mut program = child(test, &server);
    program.env(
        "VAULT_ADDR",
        format!("http://{}", listener.local_addr().unwrap()),
    );
    program.env("VAULT_TOKEN", "hunter2");
    // The program does not read these.
    program
        .env_remove("OFFICERND_CLIENT_ID")
        .env_remove("OFFICERND_CLIENT_SECRET");
    runtime.spawn(async move { axum::serve(listener, vault).await });
    let printed = run(program);
    assert!(printed.contains("200 OK"), "{printed}");
    assert_eq!(server.officernd().token_requests(), 1);
}

pub(crate) fn traces_without_the_token(test: &str) {
    let (_runtime, server) = start();
    let printed = run(child(test, &server));
    assert!(printed.contains("200 OK"), "{printed}");
    assert!(printed.contains("started processing request"), "{printed}");
    for secret in ["Bearer ", &server.officernd().client_secret()] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert_eq!(server.officernd().api_unauthorized(), 0);
}

pub(crate) fn serves_and_becomes_ready(test: &str) {
    let (runtime, server) = start();
    let service = Service::start(child(test, &server));
    runtime.block_on(async {
        // `warm_up` has fetched the token before the service listens.
        assert_eq!(service.get("/readyz").await.status(), 200);
        assert_eq!(service.get("/locations").await.status(), 200);
    });
    assert_eq!(server.officernd().token_requests(), 1);
}

pub(crate) fn maps_errors(test: &str) {
    let (runtime, server) = start();
    server.officernd().token_faults().always(Fault::Status(429));
    let service = Service::start(child(test, &server));
    runtime.block_on(async {
        let response = service.get("/locations").await;
        assert_eq!(response.status(), 503);
        let retry_after = response.headers()["retry-after"].to_str().unwrap();
        assert!(retry_after.parse::<u32>().unwrap() >= 1, "{retry_after}");
        assert!(response.text().await.unwrap().contains("429"));
    });
    server.officernd().token_faults().clear();
    drop(service);

    // Another process, since this one backs off.
    let service = Service::start(child(test, &server));
    server.officernd().api_faults().always(Fault::Reset);
    runtime.block_on(async { assert_eq!(service.get("/locations").await.status(), 502) });
}

/// A program that serves until it is killed.
struct Service {
    process: Child,
    address: String,
}

impl Service {
    fn start(mut program: Command) -> Self {
        let mut process = program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let Some(address) =
            lines.find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
        else {
            let mut errors = String::new();
            process.stderr.unwrap().read_to_string(&mut errors).unwrap();
            panic!("the program ended: {errors}");
        };
        Self { process, address }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client
            .get(format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
