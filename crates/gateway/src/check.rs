//! `check`: tries the configuration against OfficeRnD, one step after the
//! other. Spends one token request per organization.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;

use axum::http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use officernd_auth::{AccessToken, BoxError, Error, ErrorKind};
use tower::ServiceExt as _;

use crate::config::Config;
use crate::setup::Setup;

/// The exit code names the step: 2 configuration, 3 connection, 4 token,
/// 5 scope, 6 organization.
struct Problem(u8, String);

/// Prints a line per step that works, and one for each organization that does
/// not. The exit code is the first problem's.
pub(crate) async fn run(config: Config) -> ExitCode {
    let setup = match Setup::new(config) {
        Ok(setup) => setup,
        Err(error) => return fail(&Problem(2, error.to_string())),
    };
    say(&format!(
        "configuration: valid; API at {}",
        setup.identity.upstream
    ));
    let mut code = ExitCode::SUCCESS;
    for (slug, scopes) in &setup.scopes {
        if let Err(problem) = organization(&setup, slug, scopes).await
            && code == ExitCode::SUCCESS
        {
            code = fail(&problem);
        }
    }
    code
}

async fn organization(setup: &Setup, slug: &str, scopes: &[String]) -> Result<(), Problem> {
    let name = match slug {
        "" => String::new(),
        slug => format!(" of {slug}"),
    };
    let Some(cache) = setup.tokens.cache(slug) else {
        return Err(Problem(2, format!("no app{name} is configured")));
    };
    let token = cache.token().await;
    let token = token.map_err(|error| refused(&name, &error))?;
    say(&format!(
        "token{name}: lives {} s",
        token.expires_in().as_secs()
    ));
    let states = setup.tokens.states();
    let state = states.iter().find(|state| state.slug == slug);
    if let Some(problem) = state.and_then(|state| state.store_problem.as_deref()) {
        return Err(Problem(3, format!("the store cannot be used: {problem}")));
    }
    granted(&name, &token, scopes)?;
    if slug.is_empty() {
        say("organization: not checked, OFFICERND_ORG_SLUG is not set");
        return Ok(());
    }
    locations(setup, slug).await
}

fn granted(name: &str, token: &AccessToken, asked: &[String]) -> Result<(), Problem> {
    // A server that names no scope has granted what was asked for
    // (RFC 6749 section 5.1).
    let Some(scope) = token.scope() else {
        say(&format!("scope{name}: as asked for"));
        return Ok(());
    };
    let granted: BTreeSet<&str> = scope.split_whitespace().collect();
    let missing = asked.iter().map(String::as_str);
    let missing: Vec<&str> = missing.filter(|scope| !granted.contains(scope)).collect();
    if missing.is_empty() {
        say(&format!("scope{name}: {scope}"));
        return Ok(());
    }
    let missing = missing.join(" ");
    Err(Problem(
        5,
        format!("the app{name} was not granted {missing}: add the scope to the app"),
    ))
}

async fn locations(setup: &Setup, slug: &str) -> Result<(), Problem> {
    let problem = |code, what: &str| Problem(code, format!("organization {slug}: {what}"));
    let mut parts = setup.origin.clone().into_parts();
    let path = format!("/api/v2/organizations/{slug}/locations");
    parts.path_and_query = path.parse().ok();
    let uri = Uri::from_parts(parts).map_err(|_| problem(6, "is no slug"))?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    let response = setup.upstream.replaying.clone().oneshot(request).await;
    let response =
        response.map_err(|error: BoxError| problem(3, &format!("the API: {}", chain(&error))))?;
    let status = response.status();
    let why = match status {
        status if status.is_success() => {
            say(&format!("organization {slug}: {path} answers {status}"));
            for (name, value) in response.headers() {
                if let Some(what) = name.as_str().strip_prefix("x-ratelimit-remaining-") {
                    let left = String::from_utf8_lossy(value.as_bytes());
                    say(&format!("API requests left, {what}: {left}"));
                }
            }
            return Ok(());
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(problem(
                5,
                &format!("{status}: the app may lack the scope that reads locations"),
            ));
        }
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {
            "no such organization for this app: an app belongs to the one that made it"
        }
        StatusCode::TOO_MANY_REQUESTS => "the API's requests are used up",
        _ => "the API did not serve the request",
    };
    Err(problem(6, &format!("{status}: {why}")))
}

fn refused(name: &str, error: &Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout => 3,
        ErrorKind::InvalidScope => 5,
        _ => 4,
    };
    Problem(code, format!("token{name}: {error}"))
}

/// An error and its causes.
fn chain(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn say(line: &str) {
    // A reader that has gone away needs no line.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn fail(Problem(code, sentence): &Problem) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "failed: {sentence}");
    ExitCode::from(*code)
}
