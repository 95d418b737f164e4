//! `check`: tries the configuration against OfficeRnD, one step after the other. Spends one token
//! request for each organization, two if the first fails in passing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use officernd_auth::{AccessToken, Error, ErrorKind, OfficeRndAuthLayer, StaticToken};
use tower::ServiceExt as _;

use crate::apps::{App, Gateway};
use crate::out::{Out, chain};
use crate::proxy::at;

/// The token endpoint without `OFFICERND_TOKEN_URL`.
const TOKEN_URL: &str = "https://identity.officernd.com/oauth/token";

/// For an answer to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The exit code names the step: 2 configuration, 3 connection, 4 token, 5 scope, 6 organization.
struct Problem(u8, String);

/// Prints a line for each step that works, and one for each organization that does not. The exit
/// code is the first problem's.
pub(crate) async fn run(gateway: &Gateway) -> ExitCode {
    let api = gateway.config.upstream_text();
    say(&format!("configuration: valid; API at {api}"));
    let mut code = ExitCode::SUCCESS;
    let mut failed = |Problem(step, sentence)| {
        let _ = writeln!(std::io::stderr(), "failed: {sentence}");
        if code == ExitCode::SUCCESS {
            code = ExitCode::from(step);
        }
    };
    // Both ways, even if the first fails: one may be blocked.
    let mut urls = BTreeSet::from([api]);
    for app in &gateway.apps {
        let url = app.settings.token_url.as_deref().unwrap_or(TOKEN_URL);
        urls.extend(origin(url));
    }
    let mut connected = true;
    for url in &urls {
        if let Err(problem) = connection(url, &gateway.out).await {
            failed(problem);
            connected = false;
        }
    }
    for app in gateway.apps.iter().filter(|_| connected) {
        if let Err(problem) = organization(gateway, app).await {
            failed(problem);
        }
    }
    code
}

/// Any answer will do, since it came through DNS, proxy, TCP and TLS.
async fn connection(url: &str, out: &Out) -> Result<(), Problem> {
    let problem = |text: &str| Problem(3, format!("connection: {text}"));
    let uri: Uri = url.parse().map_err(|_| problem("is not a URL"))?;
    let through = match out.proxy(&uri) {
        Some(proxy) => format!(" through the proxy {proxy}"),
        None => String::new(),
    };
    let request = Request::head(uri).body(Body::empty());
    let request = request.map_err(|_| problem("is not a URL"))?;
    match tokio::time::timeout(ANSWER_TIMEOUT, out.client.clone().oneshot(request)).await {
        Ok(Ok(_)) => say(&format!("connection: {url} answers{through}")),
        Ok(Err(error)) => return Err(problem(&chain(&*error))),
        Err(_) => return Err(problem(&format!("{url}: no answer within 10 s"))),
    }
    Ok(())
}

async fn organization(gateway: &Gateway, app: &App) -> Result<(), Problem> {
    let slug = app.slug.as_str();
    let name = match slug {
        "" => String::new(),
        slug => format!(" of {slug}"),
    };
    let token = app.layer.cache().token().await;
    let token = token.map_err(|error| refused(&name, &error))?;
    let life = token.expires_in().as_secs();
    say(&format!("token{name}: lives {life} s"));
    if let Some(problem) = app.state().store_problem {
        return Err(Problem(3, format!("the store cannot be used: {problem}")));
    }
    granted(&name, &token, &app.settings.scopes)?;
    if slug.is_empty() {
        say("organization: not checked, OFFICERND_ORG_SLUG is not set");
        return Ok(());
    }
    let found = locations(gateway, slug).await;
    // Another host may serve the organization, and be why it was not found. A 401 has started a
    // token request, which must not be given the time to be sent.
    if !matches!(found, Err(Problem(5, _)))
        && let Some(region) = region(gateway, slug, &token).await
    {
        say(&format!("region: {region} serves {slug}"));
        say(&format!("region: set GATEWAY_UPSTREAM={region}"));
        say(&format!(
            "region: in Rust, OFFICERND_ALLOW_ORIGINS={region}"
        ));
    }
    found
}

fn granted(name: &str, token: &AccessToken, asked: &[String]) -> Result<(), Problem> {
    // A server that names no scope has granted what was asked for (RFC 6749 section 5.1).
    let Some(scope) = token.scope() else {
        say(&format!("scope{name}: as asked for"));
        return Ok(());
    };
    let granted = |asked: &&String| scope.split_whitespace().any(|granted| granted == *asked);
    if let Some(missing) = asked.iter().find(|asked| !granted(asked)) {
        let problem = format!("the app{name} was not granted {missing}: add the scope to the app");
        return Err(Problem(5, problem));
    }
    say(&format!("scope{name}: {scope}"));
    Ok(())
}

async fn locations(gateway: &Gateway, slug: &str) -> Result<(), Problem> {
    let problem = |code, what: &str| Problem(code, format!("organization {slug}: {what}"));
    let path = format!("/api/v2/organizations/{slug}/locations");
    let request = get(gateway, &path).ok_or_else(|| problem(2, "is not a slug"))?;
    // Not the replaying client: a 401 would spend another token request.
    let response = gateway.streaming.clone().oneshot(request);
    let response = match tokio::time::timeout(ANSWER_TIMEOUT, response).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(problem(3, &format!("the API: {}", chain(&*error)))),
        Err(_) => return Err(problem(3, "the API: no answer within 10 s")),
    };
    let status = response.status();
    let (code, why) = match status {
        status if status.is_success() => {
            say(&format!("organization {slug}: {path} answers {status}"));
            return Ok(());
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (5, "the app may lack the scope that reads locations")
        }
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => (
            6,
            "no such organization for this app, or it was made by another",
        ),
        StatusCode::TOO_MANY_REQUESTS => (6, "the API's requests are used up"),
        _ => (6, "the API did not serve the request"),
    };
    Err(problem(code, &format!("{status}: {why}")))
}

/// Asks API v1 which host serves the organization. No answer means none: the app may have no scope
/// for it.
async fn region(gateway: &Gateway, slug: &str, token: &AccessToken) -> Option<String> {
    let mut request = get(gateway, &format!("/api/v1/organizations/{slug}"))?;
    let bearer = token.header_value().clone();
    request.headers_mut().insert(AUTHORIZATION, bearer);
    let body = async {
        let response = gateway.out.client.clone().oneshot(request).await.ok()?;
        let body = Limited::new(response.into_body(), 64 * 1024);
        body.collect().await.ok()
    };
    let body = tokio::time::timeout(ANSWER_TIMEOUT, body).await.ok()??;
    let region = region_in(&body.to_bytes())?;
    (region != gateway.config.upstream_text()).then_some(region)
}

/// Finds the regional host in the answer: an https origin that the layer accepts, and nothing else
/// of the answer.
fn region_in(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let url = answer.pointer("/regionInfo/regionUrl")?.as_str()?;
    // A name in DNS has at most 253 characters.
    let region = origin(url)?;
    if !region.starts_with("https://") || region.len() > "https://".len() + 253 {
        return None;
    }
    let layer = OfficeRndAuthLayer::builder(StaticToken::new("unused").ok()?);
    layer.allow_origin(&region).build().ok().map(|_| region)
}

/// The origin of a URL, without the port that its scheme has by default.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?.as_str().to_ascii_lowercase();
    let port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    (!authority.contains(['@', '*'])).then(|| format!("{scheme}://{authority}"))
}

/// A request to the API.
fn get(gateway: &Gateway, path: &str) -> Option<Request<Body>> {
    let uri = at(&gateway.config.upstream, path)?;
    Request::get(uri).body(Body::empty()).ok()
}

fn refused(name: &str, error: &Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout => 3,
        ErrorKind::InvalidScope => 5,
        _ => 4,
    };
    Problem(code, format!("token{name}: {}", chain(error)))
}

fn say(line: &str) {
    // A reader that has gone away needs no line.
    let _ = writeln!(std::io::stdout(), "{line}");
}
