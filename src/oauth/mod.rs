//! The provider that talks to OfficeRnD, or to any OAuth 2.0 token endpoint.

mod answer;
mod client;
mod request;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry_after;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use self::client::TokenClient;
use self::request::RequestTemplate;
use self::transport::{ServiceTransport, Transport};
use crate::clock::{Clock, TokioClock, later};
use crate::credentials::{ClientCredentials, Loader};
use crate::error::{BoxError, ConfigError, Error};
use crate::provider::{FetchContext, KeyMaterial, KeyedProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::token::AccessToken;

/// Fetches tokens from OfficeRnD, or from another OAuth 2.0 token endpoint, by the
/// client-credentials grant (RFC 6749 section 4.4).
///
/// It works over any tower HTTP service ([`with_service`](Self::with_service));
/// [`new`](Self::new) brings reqwest. It follows no redirect (a 307 would
/// replay the secret), takes no compression, reads 64 KiB at most, and
/// accepts only a 200 with a valid token answer.
///
/// Credentials in files and those of a
/// [`CredentialSource`](crate::credentials::CredentialSource) are loaded before
/// each token request. While that fails, or takes longer than half of the
/// `fetch_timeout`, the last pair that could be loaded is used.
///
/// A pair that the endpoint refused with `invalid_client` is not sent again for 60 s, doubling to
/// 10 min. A source that can change is asked every 5 s meanwhile, and another pair is sent at once.
///
/// ```
/// # #[cfg(feature = "reqwest")]
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
///
/// let credentials = ClientCredentials::new("client-id", "client-secret")
///     .scope("flex.community.members.read");
/// let layer = OfficeRndAuthLayer::new(HttpTokenProvider::new(credentials)?);
/// # drop(layer);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "reqwest"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct HttpTokenProvider {
    inner: Arc<Inner>,
}

struct Inner {
    credentials: ClientCredentials,
    client: TokenClient,
    rate_limit: RateLimit,
}

impl HttpTokenProvider {
    /// Creates a provider with its own reqwest client: 5 s to connect, no
    /// redirects, no compression, no idle connections. The cache's
    /// `fetch_timeout` bounds each request.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for credentials, scopes, a token URL or a file that
    /// cannot be used, for a token URL of OfficeRnD without a scope, or if the
    /// client cannot be built: without a TLS feature for an https token URL, or
    /// with `rustls-no-provider` before the program has installed a provider.
    #[cfg(feature = "reqwest")]
    pub fn new(credentials: ClientCredentials) -> Result<Self, ConfigError> {
        Self::with_reqwest(credentials, ::reqwest::Client::builder())
    }

    /// Like [`new`](Self::new), with your own client settings: proxies, roots,
    /// addresses. The provider sets redirects, retries, compression, pooling and
    /// timeouts. A plain http token URL is on this machine, so it uses no proxy.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    #[cfg(feature = "reqwest")]
    pub fn with_reqwest(
        credentials: ClientCredentials,
        client: ::reqwest::ClientBuilder,
    ) -> Result<Self, ConfigError> {
        let token_url = credentials.check()?;
        credentials.check_scope(&token_url)?;
        let plain = token_url.scheme_str() == Some("http");
        let transport = reqwest::ReqwestTransport::new(client, plain)?;
        Self::over(credentials, Box::new(transport))
    }

    /// Like [`new`](Self::new), over a tower HTTP service, which is cloned for each fetch. It
    /// must not follow redirects nor decompress, and its errors must not quote the request, whose
    /// body holds the client secret: they go to logs.
    ///
    /// Give it a client of its own: one that is not behind a limit that the
    /// layer's requests share. Requests that wait for a token hold their
    /// permits, and the token request would never get one. The token request carries
    /// [`SkipAuth`](crate::SkipAuth), so the client may have the layer itself. A client that is not
    /// ready after nine tenths of the `fetch_timeout` is a
    /// [`Timeout`](crate::ErrorKind::Timeout) that names `poll_ready`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for credentials, scopes, a token URL or a secret file
    /// that cannot be used.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    /// use hyper_util::client::legacy::Client;
    /// use hyper_util::rt::TokioExecutor;
    /// use officernd_auth::{ClientCredentials, HttpTokenProvider};
    ///
    /// # fn main() -> Result<(), officernd_auth::ConfigError> {
    /// let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let credentials = ClientCredentials::new("client-id", "client-secret")
    ///     .scope("flex.community.members.read");
    /// let provider = HttpTokenProvider::with_service(credentials, http)?;
    /// # drop(provider);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_service<S, B>(
        credentials: ClientCredentials,
        service: S,
    ) -> Result<Self, ConfigError>
    where
        S: Service<Request<Full<Bytes>>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        Self::over(credentials, Box::new(ServiceTransport(service)))
    }

    fn over(
        credentials: ClientCredentials,
        transport: Box<dyn Transport>,
    ) -> Result<Self, ConfigError> {
        let token_url = credentials.check()?;
        let loader = Loader::new(credentials.source.clone())?;
        let template = RequestTemplate {
            token_url,
            scope: credentials.asked_scope(),
            form_params: credentials.form_params.clone(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                rate_limit: RateLimit::for_url(&template.endpoint()),
                client: TokenClient::new(loader, template, transport),
                credentials,
            }),
        })
    }
}

impl TokenProvider for HttpTokenProvider {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        self.inner.client.fetch(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        Some(self.inner.rate_limit.clone())
    }
}

/// How long credentials may take to load for the key of a shared token.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

impl KeyedProvider for HttpTokenProvider {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        let until = later(TokioClock.now(), LOAD_TIMEOUT);
        let client = &self.inner.client;
        let credentials = client.loader.load(&TokioClock, until).await?;
        Ok(client.material(&credentials))
    }
}

impl fmt::Debug for HttpTokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some gateways take a key in the query.
        let token_url = self.inner.client.template.endpoint();
        let token_url = token_url.split('?').next().unwrap_or_default();
        f.debug_struct("HttpTokenProvider")
            .field("credentials", &self.inner.credentials)
            .field("token_url", &token_url)
            .finish_non_exhaustive()
    }
}
