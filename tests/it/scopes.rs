//! Apps with read-only and write-only scopes, and the answers that OfficeRnD gives them.

use officernd_auth::{
    ClientCredentials, Error, ErrorKind, HttpTokenProvider, OfficeRndAuth, OfficeRndAuthLayer,
};
use officernd_simulator::{Simulator, SimulatorBuilder};
use reqwest::{Method, Request, Response};
use tower::{BoxError, Layer as _, ServiceExt as _};

const READ: &str = "flex.community.members.read";
const CREATE: &str = "flex.community.members.create";

/// Members are read below `members`, and made below `members/new`.
fn rules() -> SimulatorBuilder {
    Simulator::builder()
        .org_slug("acme")
        .require_scope_for("members/list", READ)
        .require_scope_for("members/new", CREATE)
}

fn client(
    officernd: &Simulator,
    scope: &str,
) -> (OfficeRndAuth<reqwest::Client>, OfficeRndAuthLayer) {
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(scope)
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials).unwrap())
        .allow_origin(officernd.url())
        .build()
        .unwrap();
    (layer.layer(reqwest::Client::new()), layer)
}

async fn send(
    client: &OfficeRndAuth<reqwest::Client>,
    officernd: &Simulator,
    method: Method,
    path: &str,
) -> Result<Response, BoxError> {
    let url = format!("{}/api/v2/organizations/acme/{path}", officernd.url());
    let request = Request::new(method, url.parse()?);
    client.clone().oneshot(request).await
}

/// The answer to a token without the scope: the same as to no token at all.
async fn assert_unauthorized(response: Response) {
    assert_eq!(response.status(), 401);
    let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(body["message"], "Unauthorized access");
}

#[tokio::test]
async fn a_read_only_app_reads_and_is_refused_when_it_writes() {
    let officernd = rules().grant_scopes([READ]).start().await.unwrap();
    let (client, layer) = client(&officernd, READ);
    let list = send(&client, &officernd, Method::GET, "members/list").await;
    assert_eq!(list.unwrap().status(), 200);
    let made = send(&client, &officernd, Method::POST, "members/new").await;
    assert_unauthorized(made.unwrap()).await;

    // The token is good for what it may do, whatever the 401 did to it.
    let list = send(&client, &officernd, Method::GET, "members/list").await;
    assert_eq!(list.unwrap().status(), 200);
    assert_eq!(layer.cache().status().scope.as_deref(), Some(READ));
}

#[tokio::test]
async fn a_write_only_app_writes_and_is_refused_when_it_reads() {
    let officernd = rules().grant_scopes([CREATE]).start().await.unwrap();
    let (client, _) = client(&officernd, CREATE);
    let made = send(&client, &officernd, Method::POST, "members/new").await;
    assert_eq!(made.unwrap().status(), 200);
    let list = send(&client, &officernd, Method::GET, "members/list").await;
    assert_unauthorized(list.unwrap()).await;
}

#[tokio::test]
async fn one_scope_too_many_means_no_token_and_the_error_names_the_scopes() {
    let officernd = rules().grant_scopes([READ]).start().await.unwrap();
    let (client, _) = client(&officernd, &format!("{READ} {CREATE}"));
    let failed = send(&client, &officernd, Method::GET, "members/list").await;
    let error = failed.unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidScope);
    assert!(!error.is_transient());
    for scope in [READ, CREATE] {
        assert!(error.to_string().contains(scope), "{error}");
    }
    assert_eq!(officernd.api_requests(), 0);
}
