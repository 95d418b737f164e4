//! Apps with read-only and write-only scopes, and the answers that OfficeRnD gives them.

use officernd_auth::{Error, ErrorKind};
use officernd_simulator::Simulator;
use reqwest::{Method, Request};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{app_of, layer_of};

const READ: &str = "flex.community.members.read";
const CREATE: &str = "flex.community.members.create";

/// A service where members are read below `members/list` and made below `members/new`, for an app with one scope.
async fn officernd(scope: &str) -> Simulator {
    let rules = Simulator::builder()
        .org_slug("acme")
        .require_scope_for("members/list", READ)
        .require_scope_for("members/new", CREATE);
    rules.grant_scopes([scope]).start().await.unwrap()
}

#[tokio::test]
async fn an_app_may_do_what_its_scope_allows_also_after_a_401_for_what_it_may_not_do() {
    for scope in [READ, CREATE] {
        let officernd = officernd(scope).await;
        let layer = layer_of(app_of(&officernd).scope(scope), &officernd);
        let list = (Method::GET, "members/list", READ);
        let new = (Method::POST, "members/new", CREATE);
        for (method, path, needed) in [list.clone(), new, list] {
            let url = format!("{}/api/v2/organizations/acme/{path}", officernd.url());
            let request = Request::new(method, url.parse().unwrap());
            let client = layer.layer(reqwest::Client::new());
            let response = client.oneshot(request).await.unwrap();
            if scope == needed {
                assert_eq!(response.status(), 200);
            } else {
                // The same as to no token at all.
                assert_eq!(response.status(), 401);
                let body = response.text().await.unwrap();
                assert!(
                    body.contains(r#""message":"Unauthorized access""#),
                    "{body}"
                );
            }
        }
        assert_eq!(layer.cache().status().scope.as_deref(), Some(scope));
    }
}

#[tokio::test]
async fn one_scope_too_many_means_no_token_and_the_error_names_the_scopes() {
    let officernd = officernd(READ).await;
    let layer = layer_of(app_of(&officernd).scopes([READ, CREATE]), &officernd);
    let error: Error = layer.cache().token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidScope);
    assert!(!error.is_transient());
    for scope in [READ, CREATE] {
        assert!(error.to_string().contains(scope), "{error}");
    }
}
