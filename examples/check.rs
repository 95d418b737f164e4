//! Checks a set-up step by step. Stops at the first problem, with one sentence and an exit code that names the step:
//! 2 configuration, 3 connection, 4 token, 5 scope, 6 organization; 0 if all is well. It spends one token request.
//!
//! It reads the variables that `OfficeRndAuthLayer::from_env` reads, `OFFICERND_ORG_SLUG`, and `OFFICERND_API_URL`
//! (default `https://app.officernd.com`). If a regional host serves the organization, it prints the host and the setting
//! that allows it. `--explain` prints the equivalent curl commands and sends nothing.
//! `cargo run -p officernd-simulator` prints variables to try it with.

#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::{collections::BTreeSet, env::var, error::Error as _, fmt::Display, process::ExitCode};

use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, RateLimit, StaticToken, TokenProvider,
};
use reqwest::{Client, Method, Request, Response, StatusCode, Url, redirect};
use tower::{Layer as _, ServiceExt as _};

/// An exit code, and a sentence about the cause.
pub(crate) struct Problem(pub(crate) u8, pub(crate) String);

/// Makes every failure a lasting one: the cache tries again after a transient failure, and would spend a second request.
struct Once(HttpTokenProvider);

impl TokenProvider for Once {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let result = self.0.fetch(cx).await;
        result.map_err(|error| Error::new(ErrorKind::Denied, "").with_source(error))
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.0.rate_limit()
    }
}

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    let explain = std::env::args().any(|argument| argument == "--explain");
    let Err(Problem(code, sentence)) = check(explain).await else {
        return ExitCode::SUCCESS;
    };
    println!("FAILED        {sentence}");
    ExitCode::from(code)
}

pub(crate) async fn check(explain: bool) -> Result<(), Problem> {
    let or = |name, default: &str| var(name).unwrap_or_else(|_| default.to_owned());
    let identity = "https://identity.officernd.com/oauth/token";
    let token_url = or("OFFICERND_TOKEN_URL", identity);
    let api = or("OFFICERND_API_URL", "https://app.officernd.com");
    let scopes = or("OFFICERND_SCOPE", &or("OFFICERND_SCOPES", "")).replace(',', " ");

    let credentials = ClientCredentials::from_env().map_err(configuration)?;
    let provider = HttpTokenProvider::new(credentials).map_err(configuration)?;
    let layer = OfficeRndAuthLayer::builder(Once(provider)).allow_origin(&api);
    let layer = layer.build().map_err(configuration)?;
    println!("configuration scopes {scopes}, token URL {token_url}");
    let slug = var("OFFICERND_ORG_SLUG").ok();
    let locations = slug
        .as_ref()
        .map(|slug| format!("{api}/api/v2/organizations/{slug}/locations"));
    if explain {
        println!("curl {token_url} -d grant_type=client_credentials -d client_secret=*** \\");
        println!("  -d client_id=$OFFICERND_CLIENT_ID --data-urlencode 'scope={scopes}'");
        println!(
            "curl {} -H 'Authorization: Bearer ***'",
            locations.as_ref().unwrap_or(&api)
        );
        return Ok(());
    }

    let http = Client::builder().redirect(redirect::Policy::none());
    let http = http.timeout(std::time::Duration::from_secs(10));
    let http = http.build().map_err(configuration)?;
    for url in [&token_url, &api] {
        let origin = Url::parse(url).and_then(|url| url.join("/"));
        let origin = origin.map_err(configuration)?;
        // Any answer will do, since it came through DNS, TCP and TLS.
        let answer = http.head(origin.clone()).send().await;
        answer.map_err(|error| unreachable(&origin, &error))?;
        println!("connection    {origin} answers");
    }

    let token = layer
        .cache()
        .token()
        .await
        .map_err(|error| refused(&error))?;
    println!("token         lives {} s", token.expires_in().as_secs());
    // A server that names no scope has granted what was asked for (RFC 6749 section 5.1).
    let granted: BTreeSet<&str> = token.scope().unwrap_or(&scopes).split(' ').collect();
    let missing = scopes
        .split_whitespace()
        .find(|scope| !granted.contains(scope));
    if let Some(scope) = missing {
        let sentence = format!("the app was not granted {scope}: add the scope to the app");
        return Err(Problem(5, sentence));
    }
    println!("scope         {}", Vec::from_iter(granted).join(" "));

    let (Some(slug), Some(locations)) = (slug, locations) else {
        println!("organization  not checked: OFFICERND_ORG_SLUG is not set");
        return Ok(());
    };
    let url = Url::parse(&locations).map_err(configuration)?;
    let request = Request::new(Method::GET, url);
    let response = layer.layer(http.clone()).oneshot(request).await;
    let response = response.map_err(|error| Problem(6, format!("{locations}: {error}")))?;
    // A 401 starts a token request in the background, which must not be given the time to be sent.
    if response.status() != StatusCode::UNAUTHORIZED {
        // Past the layer, as the app may have no scope of API v1. No answer means no region.
        let request = http.get(format!("{api}/api/v1/organizations/{slug}"));
        let request = request.header("authorization", token.header_value());
        let body = match request.send().await {
            Ok(answer) => body(answer).await,
            Err(_) => Vec::new(),
        };
        let listed = format!("{api},{}", or("OFFICERND_ALLOW_ORIGINS", ""));
        if let Some(origin) = region(&body, &listed) {
            println!("region        {origin} serves this organization: send requests there, and");
            println!("              allow it with allow_origin(\"{origin}\"), or in the settings");
            println!("              with OFFICERND_ALLOW_ORIGINS={origin}");
        }
    }
    organization(&response)?;
    println!("organization  {locations} answers {}", response.status());
    // OfficeRnD counts reads and writes, a minute and a day; it need not send the headers.
    for (name, value) in response.headers() {
        if let Some(what) = name.as_str().strip_prefix("x-ratelimit-remaining-") {
            println!(
                "API budget    {what}: {} left",
                value.to_str().unwrap_or("?")
            );
        }
    }
    Ok(())
}

/// The body of an answer; empty if it breaks off or is longer than 64 KiB.
async fn body(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return body,
            Err(_) => return Vec::new(),
        }
        if body.len() > 64 * 1024 {
            return Vec::new();
        }
    }
}

/// Finds the organization's regional host in an answer to `GET /api/v1/organizations/{slug}`. Returns its https origin,
/// which is ASCII, and nothing else of the answer. `None` if the layer allows it by default or `listed` contains it.
pub(crate) fn region(answer: &[u8], listed: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let url = answer.pointer("/regionInfo/regionUrl")?.as_str()?;
    let url = Url::parse(url).ok()?;
    let user_info = !url.username().is_empty() || url.password().is_some();
    if url.scheme() != "https" || user_info {
        return None;
    }
    let by_default = ["https://app.officernd.com", "https://hybrid.officernd.com"];
    let mut allowed = by_default.into_iter().chain(listed.split([',', ' ']));
    if allowed.any(|it| Url::parse(it).is_ok_and(|it| it.origin() == url.origin())) {
        return None;
    }
    let origin = url.origin().ascii_serialization();
    // A name in DNS has at most 253 characters. The layer must accept what this program advises.
    let layer = OfficeRndAuthLayer::builder(StaticToken::new("unused").ok()?).allow_origin(&origin);
    (url.host_str()?.len() <= 253 && layer.build().is_ok()).then_some(origin)
}

fn configuration(error: impl Display) -> Problem {
    Problem(2, error.to_string())
}

fn unreachable(origin: &Url, error: &reqwest::Error) -> Problem {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let cause = causes.last().map(ToString::to_string).unwrap_or_default();
    let details = format!("{error:?}").to_ascii_lowercase();
    let advice = if details.contains("dns") {
        "its name does not resolve: check the spelling and this machine's DNS"
    } else if details.contains("certificate") {
        "its certificate is not trusted: a TLS proxy needs its root in SSL_CERT_FILE"
    } else if error.is_timeout() {
        "no answer within 10 s: a firewall may drop the packets"
    } else {
        "no connection: check the port, and HTTPS_PROXY if this network has a proxy"
    };
    Problem(3, format!("{origin}: {advice} ({cause})"))
}

fn refused(error: &Error) -> Problem {
    let error = error.source().and_then(Error::find_in).unwrap_or(error);
    let code = match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout => 3,
        ErrorKind::InvalidScope => 5,
        _ => 4,
    };
    Problem(code, error.to_string())
}

fn organization(response: &Response) -> Result<(), Problem> {
    let (code, sentence) = match response.status().as_u16() {
        200..=299 => return Ok(()),
        401 | 403 => (
            5,
            "the token was refused: the app may lack the scope that reads locations",
        ),
        404 | 500 => (
            6,
            "no such organization for this app: it belongs to the one that made it",
        ),
        429 => (6, "the budget of API requests is used up"),
        _ => (6, "the API did not serve the request"),
    };
    Err(Problem(code, format!("{}: {sentence}", response.status())))
}
