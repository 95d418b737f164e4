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
