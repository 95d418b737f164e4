use officernd_auth::{BoxError, ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
use officernd_simulator::{Fault, Simulator};
use tower::{Layer, ServiceExt};

#[tokio::test]
async fn a_bad_minute_at_officernd_fails_no_request() -> Result<(), BoxError> {
    let officernd = Simulator::builder().org_slug("acme").start().await?;
    let credentials = ClientCredentials::new(officernd.client_id(), officernd.client_secret())
        .scope(officernd.scope())
        .token_url(officernd.token_url());
    let layer = OfficeRndAuthLayer::builder(HttpTokenProvider::new(credentials)?)
        .allow_origin(officernd.url())
        .build()?;
    let client = layer.layer(reqwest::Client::new());
    let url = format!("{}/api/v2/organizations/acme/locations", officernd.url());
    let get = || {
        client.clone().oneshot(reqwest::Request::new(
            reqwest::Method::GET,
            url.parse().unwrap(),
        ))
    };
    assert_eq!(get().await?.status(), 200);

    // The token is due for its refresh, and the token endpoint fails.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(57 * 60)).await;
    tokio::time::resume();
    officernd.token_faults().next(1, Fault::Status(503));
    for _ in 0..100 {
        assert_eq!(get().await?.status(), 200);
    }
    assert_eq!(officernd.api_unauthorized(), 0);
    Ok(())
}
