//! `examples/check.rs`: one exit code and one sentence for each cause.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test says what must hold")]

#[path = "../examples/check.rs"]
#[expect(dead_code, reason = "the test calls what `main` calls")]
mod example;
mod server;

use example::{Problem, check, region};
use officernd_simulator::Fault;
use server::{CHILD, Server};

/// Variables that differ from a sound setup; an empty value removes one.
type Env<'a> = &'a [(&'a str, &'a str)];

struct Outcome {
    code: i32,
    printed: String,
    token_requests: u64,
}

/// Runs the check in a process of its own.
async fn run(server: &Server, env: Env<'_>) -> Outcome {
    let mut command = server.child("runs_as_a_process");
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
    let secret = server.officernd.client_secret();
    assert!(!printed.contains(&secret), "{printed}");
    Outcome {
        code: output.status.code().unwrap(),
        printed,
        token_requests: server.officernd.token_requests(),
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
    server.officernd.api_faults().next(1, answer);
    let outcome = run(&server, &[]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert_eq!(outcome.token_requests, 1);
    for line in [
        "configuration scopes flex.space.locations.read",
        "connection    https://identity.officernd.com/ answers",
        "token         lives 3600 s",
        "scope         flex.space.locations.read",
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

fn answer_with(region: &str) -> String {
    serde_json::json!({"slug": "acme", "regionInfo": {"regionUrl": region}}).to_string()
}

#[tokio::test]
async fn a_regional_host_is_printed_with_the_setting_that_allows_it() {
    let body = answer_with("https://eu.officernd.com/api?key=hunter2");
    let server = Server::start().await;
    let faults = server.officernd.api_faults();
    faults.next(1, Fault::json(200, "{}"));
    faults.next(1, Fault::json(200, body.clone()));
    let outcome = run(&server, &[]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert_eq!(outcome.token_requests, 1);
    for line in [
        "region        https://eu.officernd.com serves",
        "allow_origin(\"https://eu.officernd.com\")",
        "OFFICERND_ALLOW_ORIGINS=https://eu.officernd.com\n",
    ] {
        assert!(
            outcome.printed.contains(line),
            "{line}: {}",
            outcome.printed
        );
    }
    assert!(!outcome.printed.contains("hunter2"), "{}", outcome.printed);
    let asked = server.officernd.requests();
    let path = "/api/v1/organizations/acme";
    assert!(asked.iter().any(|request| request.uri.path() == path));

    // The first request may fail for want of the regional host.
    faults.next(1, Fault::Status(404));
    faults.next(1, Fault::json(200, body.clone()));
    let outcome = run(&server, &[]).await;
    assert_eq!(outcome.code, 6, "{}", outcome.printed);
    assert!(outcome.printed.contains("region "), "{}", outcome.printed);

    // An app may have no scope of API v1.
    faults.next(1, Fault::json(200, "{}"));
    faults.next(1, Fault::Status(401));
    let outcome = run(&server, &[]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert_eq!(outcome.token_requests, 3, "one for each run");

    let too_long = body.clone() + &" ".repeat(64 * 1024);
    for (env, answer) in [
        (
            ("OFFICERND_ALLOW_ORIGINS", "https://eu.officernd.com"),
            Fault::json(200, body),
        ),
        (("LISTEN", ""), Fault::json(200, too_long)),
    ] {
        faults.next(1, Fault::json(200, "{}"));
        faults.next(1, answer);
        let outcome = run(&server, &[env]).await;
        assert_eq!(outcome.code, 0, "{}", outcome.printed);
        assert!(!outcome.printed.contains("region "), "{}", outcome.printed);
    }
}

#[test]
fn a_region_is_an_https_origin_that_is_not_listed() {
    let listed = "https://localhost:8443,https://listed.example https://*.a.example";
    for (url, origin) in [
        ("https://eu.officernd.com", "https://eu.officernd.com"),
        (
            "HTTPS://EU.OfficeRnD.com:443/api/v1?a#b",
            "https://eu.officernd.com",
        ),
        ("https://eu.example:8443/", "https://eu.example:8443"),
        (
            "https://\u{430}pp.officernd.com",
            "https://xn--pp-6kc.officernd.com",
        ),
    ] {
        let found = region(answer_with(url).as_bytes(), listed);
        assert_eq!(found.as_deref(), Some(origin), "{url}");
    }
    let long = format!("https://{}.example", vec!["a".repeat(60); 5].join("."));
    for url in [
        "https://app.officernd.com/",
        "https://hybrid.officernd.com",
        "https://localhost:8443",
        "https://listed.example",
        "http://eu.officernd.com",
        "eu.officernd.com",
        "https://me:hunter2@eu.officernd.com",
        "https://me@eu.officernd.com",
        "https://eu.officernd.com.",
        "https://a;b.officernd.com",
        "https://",
        "javascript:alert(1)",
        "data:text/plain,x",
        "https://eu officernd.com",
        "\u{1b}[2J",
        "",
        &long,
    ] {
        assert_eq!(region(answer_with(url).as_bytes(), listed), None, "{url}");
    }
    for answer in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"regionInfo":null}"#,
        r#"{"regionInfo":"https://eu.officernd.com"}"#,
        r#"{"regionInfo":{"regionUrl":null}}"#,
        r#"{"regionInfo":{"regionUrl":["https://eu.officernd.com"]}}"#,
        r#"{"regionInfo":{"regionUrl":"https://eu.officernd.com"}"#,
    ] {
        assert_eq!(region(answer.as_bytes(), listed), None, "{answer}");
    }
    let deep = "[".repeat(60_000);
    assert_eq!(region(deep.as_bytes(), listed), None);
    assert_eq!(region(b"\xff\xfe", listed), None);
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
    assert_eq!(server.officernd.requests().len(), 0);
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
            "not granted flex.space.locations.read",
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
            server.officernd.token_faults().next(1, fault);
        }
        if let Some(fault) = api {
            server.officernd.api_faults().next(1, fault);
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
