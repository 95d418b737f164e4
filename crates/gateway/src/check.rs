//! `check`: tests the configuration against OfficeRnD, step by step. Uses one token request for each
//! organization, two if the first one fails temporarily.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use officernd_auth::{AccessToken, ErrorKind, OfficeRndAuthLayer, StaticToken};
use tower::ServiceExt as _;

use crate::apps::{App, Gateway};
use crate::out::{self, HttpClient, Response, chain};
use crate::proxy::at;
use crate::say;

/// The token endpoint, unless `OFFICERND_TOKEN_URL` is set.
const TOKEN_URL: &str = "https://identity.officernd.com/oauth/token";

/// For the head of each response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A failed step: the exit code and why. The codes are 2 configuration, 3 connection, 4 token, 5 scope,
/// 6 organization.
struct Problem(u8, String);

/// Prints a line for each step that works and for each that fails. Returns the exit code of the first failure.
pub(crate) async fn run(gateway: &Gateway) -> ExitCode {
    let api = gateway.config.upstream_text();
    say(format_args!("configuration: valid; API at {api}"));
    let mut code = ExitCode::SUCCESS;
    let mut failed = |Problem(step, why)| {
        let _ = writeln!(std::io::stderr(), "failed: {why}");
        if code == ExitCode::SUCCESS {
            code = ExitCode::from(step);
        }
    };
    // All hosts, even if the first fails: a firewall may block one of them.
    let mut urls = BTreeSet::from([api]);
    for app in &gateway.apps {
        let token_url = app.settings.token_url.as_deref();
        urls.extend(origin(token_url.unwrap_or(TOKEN_URL)));
    }
    let mut connected = true;
    for url in &urls {
        if let Err(problem) = connection(url, &gateway.client).await {
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

/// Any response proves that DNS, proxy, TCP and TLS work.
async fn connection(url: &str, client: &HttpClient) -> Result<(), Problem> {
    let problem = |why: &str| Problem(3, format!("connection: {why}"));
    let uri: Uri = url.parse().map_err(|_| problem("the URL is invalid"))?;
    let through = match out::proxy(&uri) {
        Some(proxy) => format!(" through the proxy {proxy}"),
        None => String::new(),
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::HEAD;
    *request.uri_mut() = uri;
    let response = send(client, request).await;
    response.map_err(|why| problem(&why))?;
    say(format_args!("connection: {url} answers{through}"));
    Ok(())
}

async fn send(client: &HttpClient, request: Request<Body>) -> Result<Response, String> {
    let host = out::host(&request);
    match tokio::time::timeout(TIMEOUT, client.clone().oneshot(request)).await {
        Ok(response) => response.map_err(|error| chain(&*error)),
        Err(_) => Err(format!("{host}: no response within 10 s")),
    }
}

async fn organization(gateway: &Gateway, app: &App) -> Result<(), Problem> {
    let slug = app.slug.as_str();
    let of = match slug {
        "" => String::new(),
        slug => format!(" of {slug}"),
    };
    let token = app.layer.cache().token().await.map_err(|error| {
        let code = match error.kind() {
            ErrorKind::Transport | ErrorKind::Timeout => 3,
            ErrorKind::InvalidScope => 5,
            _ => 4,
        };
        Problem(code, format!("token{of}: {}", chain(&error)))
    })?;
    let left = token.expires_in().as_secs();
    say(format_args!("token{of}: valid for {left} s"));
    if let Some(problem) = app.state().store_problem {
        return Err(Problem(3, format!("the store cannot be used: {problem}")));
    }
    match token.scope() {
        // A server that names no scope has granted all that were requested (RFC 6749 section 5.1).
        None => say(format_args!("scope{of}: as requested")),
        Some(scope) => {
            let granted = |wanted: &&String| scope.split_whitespace().any(|it| it == *wanted);
            if let Some(missing) = app.settings.scopes.iter().find(|wanted| !granted(wanted)) {
                let why = format!("scope{of}: {missing} was not granted; add it to the app");
                return Err(Problem(5, why));
            }
            say(format_args!("scope{of}: {scope}"));
        }
    }
    if slug.is_empty() {
        say("organization: not checked, because OFFICERND_ORG_SLUG is not set");
        return Ok(());
    }
    let found = locations(gateway, slug).await;
    // If another host serves the organization, that explains a failure. Not after a 401: it has started
    // a token request, and waiting here would let that be sent.
    if !matches!(found, Err(Problem(5, _)))
        && let Some(region) = region(gateway, slug, &token).await
    {
        say(format_args!(
            "region: {slug} is served by {region}\n\
             region: set GATEWAY_UPSTREAM={region}\n\
             region: for programs that use the library, set OFFICERND_ALLOW_ORIGINS={region}"
        ));
    }
    found
}

async fn locations(gateway: &Gateway, slug: &str) -> Result<(), Problem> {
    let problem = |code, why: &str| Problem(code, format!("organization {slug}: {why}"));
    let path = format!("/api/v2/organizations/{slug}/locations");
    let request = get(gateway, &path).ok_or_else(|| problem(2, "is not a slug"))?;
    // Not the replaying client: a 401 would use another token request.
    let response = send(&gateway.streaming, request).await;
    let status = response.map_err(|why| problem(3, &why))?.status();
    let (code, why) = match status {
        status if status.is_success() => {
            say(format_args!("organization {slug}: {path} answers {status}"));
            return Ok(());
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (5, "the app may lack the scope that reads locations")
        }
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {
            (6, "no such organization, or the app belongs to another one")
        }
        StatusCode::TOO_MANY_REQUESTS => (6, "the API's rate limit is reached; try again later"),
        _ => (6, "the API did not serve the request"),
    };
    Err(problem(code, &format!("{status}: {why}")))
}

/// Asks API v1 which host serves the organization. Returns an https origin that the layer accepts, if it
/// is not the configured one. The app may lack the scope for this, so a failure is `None`.
async fn region(gateway: &Gateway, slug: &str, token: &AccessToken) -> Option<String> {
    let mut request = get(gateway, &format!("/api/v1/organizations/{slug}"))?;
    let bearer = token.header_value().clone();
    request.headers_mut().insert(AUTHORIZATION, bearer);
    let body = async {
        let response = gateway.client.clone().oneshot(request).await.ok()?;
        let body = Limited::new(response.into_body(), 64 * 1024);
        body.collect().await.ok()
    };
    let body = tokio::time::timeout(TIMEOUT, body).await.ok()??;
    let body: serde_json::Value = serde_json::from_slice(&body.to_bytes()).ok()?;
    let region = origin(body.pointer("/regionInfo/regionUrl")?.as_str()?)?;
    // A DNS name has at most 253 characters.
    let valid = region.starts_with("https://") && region.len() <= "https://".len() + 253;
    let layer = OfficeRndAuthLayer::builder(StaticToken::new("unused").ok()?);
    layer.allow_origin(&region).build().ok()?;
    (valid && region != gateway.config.upstream_text()).then_some(region)
}

/// Returns the origin of a URL, without its scheme's default port.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?.as_str().to_ascii_lowercase();
    let port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    (!authority.contains(['@', '*'])).then(|| format!("{scheme}://{authority}"))
}

/// Creates a request to the API.
fn get(gateway: &Gateway, path: &str) -> Option<Request<Body>> {
    let uri = at(&gateway.config.upstream, path)?;
    Request::get(uri).body(Body::empty()).ok()
}
