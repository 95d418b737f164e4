//! reqwest as the token endpoint's client.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;

use super::transport::{ReadyBy, ResponseFuture, Transport, read};
use crate::error::{ConfigError, Error, ErrorKind};

pub(super) struct ReqwestTransport(reqwest::Client);

impl ReqwestTransport {
    /// `plain`: the token URL is plain http, and so on this machine.
    pub(super) fn new(client: reqwest::ClientBuilder, plain: bool) -> Result<Self, ConfigError> {
        if let Some(problem) = missing_tls(plain) {
            let problem = problem.to_owned();
            return Err(ConfigError::Client { problem });
        }
        let client = if plain {
            // A proxy, which the environment may name, would be sent the secret
            // in the clear; https goes through it in a tunnel.
            client.no_proxy()
        } else {
            client
        };
        let client = client
            // A 307 would send the secret on.
            .redirect(reqwest::redirect::Policy::none())
            // The rate limit counts requests; none is sent behind its back.
            .retry(reqwest::retry::never())
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(Duration::from_secs(5))
            // Used once an hour: an idle connection would be a dead one.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| ConfigError::Client {
                // Its own text is "builder error"; the source knows more.
                problem: match error.source() {
                    Some(source) => source.to_string(),
                    None => error.to_string(),
                },
            })?;
        Ok(Self(client))
    }
}

impl Transport for ReqwestTransport {
    fn post<'a>(&'a self, request: Request<Bytes>, _: ReadyBy<'a>) -> ResponseFuture<'a> {
        Box::pin(async move {
            let request = reqwest::Request::try_from(request).map_err(failed)?;
            let response = self.0.execute(request).await.map_err(failed)?;
            let response = http::Response::from(response);
            // Else a timeout half way through the answer would not be one.
            read(response.map(|body| body.map_err(failed))).await
        })
    }
}

fn failed(error: reqwest::Error) -> Error {
    // Refused, DNS or TLS: nothing of the request was written.
    let unsent = error.is_connect();
    let (kind, message) = if error.is_timeout() {
        (ErrorKind::Timeout, "the token request timed out")
    } else if unsent {
        (ErrorKind::Transport, "the token endpoint cannot be reached")
    } else {
        (ErrorKind::Transport, "the token request failed")
    };
    Error::new(kind, message)
        .with_source(error.without_url())
        .mark_unsent(unsent)
}

/// Says why this build, or this program, cannot make the client.
fn missing_tls(plain: bool) -> Option<&'static str> {
    let fits = cfg!(any(feature = "rustls", feature = "native-tls"));
    if cfg!(not(feature = "rustls-no-provider")) {
        return (!fits && !plain).then_some(
            "this build has no TLS for an https token URL: enable one of the features rustls, \
             native-tls and rustls-no-provider of officernd-auth",
        );
    }
    // Without a provider reqwest panics, whatever the URL.
    #[cfg(feature = "rustls-no-provider")]
    let fits = fits || rustls::crypto::CryptoProvider::get_default().is_some();
    (!fits).then_some(
        "rustls has no cryptography provider: install one before the client is built, with \
         CryptoProvider::install_default, or enable the feature rustls",
    )
}

#[cfg(all(test, not(any(feature = "rustls", feature = "native-tls"))))]
mod tests {
    use crate::{ClientCredentials, ConfigError, HttpTokenProvider};

    fn provider(url: &str) -> Result<HttpTokenProvider, ConfigError> {
        let credentials = ClientCredentials::new("id", "secret").scope("a");
        HttpTokenProvider::new(credentials.token_url(url))
    }

    #[test]
    fn an_https_token_url_needs_tls() {
        let error = provider("https://identity.officernd.com/oauth/token").unwrap_err();
        assert!(matches!(error, ConfigError::Client { .. }), "{error}");
        assert!(error.to_string().contains("feature"), "{error}");
    }

    #[test]
    fn a_plain_token_url_needs_what_the_client_needs() {
        let plain = provider("http://127.0.0.1:1/oauth/token");
        assert_eq!(plain.is_err(), cfg!(feature = "rustls-no-provider"));
    }
}
