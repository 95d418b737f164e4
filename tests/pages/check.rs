//! `examples/check.rs`: one exit code and one sentence for each cause.

use officernd_simulator::Fault;

use super::check_example::{Problem, check};
use super::server::Server;
use super::{CHILD, child};

/// Variables that differ from a sound setup; an empty value removes one.
type Env<'a> = &'a [(&'a str, &'a str)];

struct Outcome {
    code: i32,
    printed: String,
    token_requests: u64,
}

/// Runs the check in a process of its own.
async fn run(server: &Server, env: Env<'_>) -> Outcome {
    let mut command = child("check::runs_as_a_process", server);
    command.env("OFFICERND_ORG_SLUG", "acme");
    for (name, value) in env {
        command.env(name, value);
        if value.is_empty() {
            command.env_remove(name);
        }
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let secret = server.officernd().client_secret();
    assert!(!printed.contains(&secret), "{printed}");
    Outcome {
        code: output.status.code().unwrap(),
        printed,
        token_requests: server.officernd().token_requests(),
    }
}

/// The process: the check, and its exit code.
#[tokio::test]
async fn runs_as_a_process() {
    if std::env::var_os(CHILD).is_none() {
        let outcome = run(&Server::start().await, &[]).await;
        assert_eq!(outcome.code, 0, "{}", outcome.printed);
        return;
    }
    let explain = std::env::var_os("EXPLAIN").is_some();
    if let Err(Problem(code, sentence)) = check(explain).await {
        println!("FAILED {sentence}");
        std::process::exit(code.into());
    }
}

#[tokio::test]
async fn a_sound_setup_passes_every_step_with_one_token_request() {
    let server = Server::start().await;
    let headers = vec![("x-ratelimit-remaining-read-minute".into(), "399".into())];
    let body = "{}".into();
    let answer = Fault::Response {
        status: 200,
        headers,
        body,
    };
    server.officernd().api_faults().next(1, answer);
    let outcome = run(&server, &[]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert_eq!(outcome.token_requests, 1);
    for line in [
        "configuration scopes officernd.api.read",
        "connection    https://identity.officernd.com/ answers",
        "token         lives 3600 s",
        "scope         officernd.api.read",
        "locations answers 200 OK",
        "API budget    read-minute: 399 left",
    ] {
        assert!(
            outcome.printed.contains(line),
            "{line}: {}",
            outcome.printed
        );
    }
}

#[tokio::test]
async fn explain_prints_curl_commands_without_the_secret_and_sends_nothing() {
    let server = Server::start().await;
    let outcome = run(&server, &[("EXPLAIN", "1")]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert!(
        outcome
            .printed
            .contains("curl https://identity.officernd.com/oauth/token")
    );
    assert!(outcome.printed.contains("client_secret=***"));
    assert_eq!(outcome.token_requests, 0);
    assert_eq!(server.officernd().requests().len(), 0);
}

#[tokio::test]
async fn each_cause_has_its_exit_code_and_sentence() {
    let long_label = format!("https://{}.invalid/oauth/token", "a".repeat(64));
    let cases: [(Env<'_>, i32, &str, u64); 8] = [
        (
            &[("OFFICERND_CLIENT_SECRET", "")],
            2,
            "OFFICERND_CLIENT_SECRET",
            0,
        ),
        (
            &[("OFFICERND_TOKEN_URL", "no url")],
            2,
            "OFFICERND_TOKEN_URL",
            0,
        ),
        (&[("SSL_CERT_FILE", "")], 3, "certificate is not trusted", 0),
        (
            &[("OFFICERND_API_URL", "https://localhost:1")],
            3,
            "no connection",
            0,
        ),
        (
            &[("OFFICERND_TOKEN_URL", &long_label), ("HTTPS_PROXY", "")],
            3,
            "does not resolve",
            0,
        ),
        (
            &[("OFFICERND_CLIENT_SECRET", "wrong")],
            4,
            "client id and secret",
            1,
        ),
        (&[("OFFICERND_SCOPES", "flex.no.such.scope")], 5, "scope", 1),
        (
            &[("OFFICERND_ORG_SLUG", "other")],
            6,
            "no such organization",
            1,
        ),
    ];
    for (env, code, sentence, token_requests) in cases {
        let outcome = run(&Server::start().await, env).await;
        let printed = outcome.printed;
        assert_eq!(outcome.code, code, "{env:?}: {printed}");
        let failed = printed
            .lines()
            .find(|line| line.starts_with("FAILED"))
            .unwrap();
        assert!(failed.contains(sentence), "{env:?}: {printed}");
        assert_eq!(outcome.token_requests, token_requests, "{env:?}: {printed}");
    }
}

#[tokio::test]
async fn what_the_service_answers_has_its_exit_code_and_sentence() {
    let narrowed =
        r#"{"access_token":"abc","token_type":"Bearer","expires_in":60,"scope":"other"}"#;
    let cases = [
        (Some(Fault::Status(503)), None, 3, "503"),
        (Some(Fault::Status(429)), None, 4, "429"),
        (Some(Fault::Garbage), None, 4, "token"),
        (
            Some(Fault::json(200, narrowed)),
            None,
            5,
            "not granted officernd.api.read",
        ),
        (
            None,
            Some(Fault::Status(401)),
            5,
            "scope that reads locations",
        ),
        (None, Some(Fault::Status(429)), 6, "budget"),
    ];
    for (token, api, code, sentence) in cases {
        let server = Server::start().await;
        if let Some(fault) = token {
            server.officernd().token_faults().next(1, fault);
        }
        if let Some(fault) = api {
            server.officernd().api_faults().next(1, fault);
        }
        let outcome = run(&server, &[]).await;
        assert_eq!(outcome.code, code, "{sentence}: {}", outcome.printed);
        assert!(
            outcome.printed.contains(sentence),
            "{sentence}: {}",
            outcome.printed
        );
        assert_eq!(outcome.token_requests, 1, "{}", outcome.printed);
    }
}
