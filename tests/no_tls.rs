//! Builds without TLS, or with rustls and no cryptography provider: what `HttpTokenProvider::new` says.
//!
//! `./test` runs it with the features `reqwest` and `rustls-no-provider` alone.

#![cfg(all(
    feature = "reqwest",
    not(any(feature = "rustls", feature = "native-tls"))
))]

use officernd_auth::{ClientCredentials, ConfigError, HttpTokenProvider};

fn provider(token_url: &str) -> Result<HttpTokenProvider, ConfigError> {
    let credentials = ClientCredentials::new("id", "secret").scope("a");
    HttpTokenProvider::new(credentials.token_url(token_url))
}

#[test]
fn an_https_token_url_is_refused_with_the_name_of_a_feature() {
    let error = provider("https://identity.officernd.com/oauth/token").unwrap_err();
    assert!(matches!(error, ConfigError::Client { .. }), "{error}");
    assert!(error.to_string().contains("feature"), "{error}");
}

#[test]
fn plain_http_is_refused_only_if_the_client_cannot_be_built() {
    let plain = provider("http://127.0.0.1:1/oauth/token");
    assert_eq!(plain.is_err(), cfg!(feature = "rustls-no-provider"));
}
