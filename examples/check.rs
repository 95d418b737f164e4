//! Checks a set-up step by step. Stops at the first problem, with one sentence and an exit code that names the step:
//! 2 configuration, 3 connection, 4 token, 5 scope, 6 organization; 0 if all is well. It spends one token request.
//!
//! It reads the variables that `OfficeRndAuthLayer::from_env` reads, `OFFICERND_ORG_SLUG`, and `OFFICERND_API_URL`
//! (default `https://app.officernd.com`). `--explain` prints the equivalent curl commands and sends nothing.
//! `cargo run --example simulator` prints variables to try it with.

#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::collections::BTreeSet;
use std::env::var;
use std::error::Error as _;
use std::process::ExitCode;
use std::time::Duration;

use officernd_auth::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchContext, HttpTokenProvider,
    OfficeRndAuthLayer, TokenProvider,
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
}

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    let explain = std::env::args().any(|argument| argument == "--explain");
    match check(explain).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem(code, sentence)) => {
            println!("FAILED        {sentence}");
            ExitCode::from(code)
        }
    }
}

pub(crate) async fn check(explain: bool) -> Result<(), Problem> {
    let token_url = or(
        "OFFICERND_TOKEN_URL",
        "https://identity.officernd.com/oauth/token",
    );
    let api = or("OFFICERND_API_URL", "https://app.officernd.com");
    let scopes = var("OFFICERND_SCOPE")
        .or(var("OFFICERND_SCOPES"))
        .unwrap_or_default();
    let scopes = scopes.replace(',', " ");
    let asked: BTreeSet<&str> = scopes.split_whitespace().collect();
    let locations = var("OFFICERND_ORG_SLUG")
        .map(|slug| format!("{api}/api/v2/organizations/{slug}/locations"));

    let configuration = |error: &dyn std::fmt::Display| Problem(2, error.to_string());
    let credentials = ClientCredentials::from_env().map_err(|error| configuration(&error))?;
    let provider = HttpTokenProvider::new(credentials).map_err(|error| configuration(&error))?;
    let layer = OfficeRndAuthLayer::builder(Once(provider))
        .allow_origin(&api)
        .build()
        .map_err(|error| configuration(&error))?;
    println!("configuration scopes {scopes}, token URL {token_url}");
    if explain {
        explain_in_curl(&token_url, &scopes, locations.as_deref().ok());
        return Ok(());
    }

    let http = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(Duration::from_secs(10));
    let http = http.build().map_err(|error| configuration(&error))?;
    for url in [&token_url, &api] {
        let origin = Url::parse(url)
            .and_then(|url| url.join("/"))
            .map_err(|error| configuration(&error))?;
        // Any answer will do, since it came through DNS, TCP and TLS.
        if let Err(error) = http.head(origin.clone()).send().await {
            return Err(Problem(3, unreachable(&origin, &error)));
        }
        println!("connection    {origin} answers");
    }

    let token = layer
        .cache()
        .token()
        .await
        .map_err(|error| refused(&error))?;
    println!("token         lives {} s", token.expires_in().as_secs());
    // A server that names no scope has granted what was asked for (RFC 6749 section 5.1).
    let granted: BTreeSet<&str> = token
        .scope()
        .unwrap_or(&scopes)
        .split_whitespace()
        .collect();
    let missing: Vec<&str> = asked.difference(&granted).copied().collect();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        return Err(Problem(
            5,
            format!("the app was not granted {missing}: add the scope to the app"),
        ));
    }
    println!("scope         {}", Vec::from_iter(granted).join(" "));

    let Ok(locations) = locations else {
        println!("organization  not checked: OFFICERND_ORG_SLUG is not set");
        return Ok(());
    };
    let url = Url::parse(&locations).map_err(|error| configuration(&error))?;
    let request = Request::new(Method::GET, url);
    let response = layer.layer(http).oneshot(request).await;
    let response = response.map_err(|error| Problem(6, format!("{locations}: {error}")))?;
    organization(&response)?;
    println!("organization  {locations} answers {}", response.status());
    budget(&response);
    Ok(())
}

fn or(name: &str, default: &str) -> String {
    var(name).unwrap_or_else(|_| default.to_owned())
}

fn unreachable(origin: &Url, error: &reqwest::Error) -> String {
    let mut causes = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes = cause.to_string();
        next = cause.source();
    }
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
    format!("{origin}: {advice} ({causes})")
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
    let problem =
        |code, sentence: &str| Err(Problem(code, format!("{}: {sentence}", response.status())));
    match response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => problem(
            5,
            "the token was refused here: the app may lack the scope that reads locations",
        ),
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => problem(
            6,
            "no such organization for this app: an app belongs to the one organization that made it",
        ),
        StatusCode::TOO_MANY_REQUESTS => problem(6, "the budget of API requests is used up"),
        _ => problem(6, "the API did not serve the request"),
    }
}

/// OfficeRnD counts reads and writes, a minute and a day; it need not send the headers.
fn budget(response: &Response) {
    for (name, value) in response.headers() {
        if let Some(what) = name.as_str().strip_prefix("x-ratelimit-remaining-") {
            println!(
                "API budget    {what}: {} left",
                String::from_utf8_lossy(value.as_bytes())
            );
        }
    }
}

fn explain_in_curl(token_url: &str, scopes: &str, locations: Option<&str>) {
    println!("curl {token_url} -d grant_type=client_credentials \\");
    println!(
        "  -d client_id=$OFFICERND_CLIENT_ID -d client_secret=*** --data-urlencode 'scope={scopes}'"
    );
    if let Some(locations) = locations {
        println!("curl {locations} -H 'Authorization: Bearer ***'");
    }
}
