//! The provider that fetches tokens from OfficeRnD, or from any OAuth 2.0 token endpoint.

mod client;
mod response;
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

use self::client::{TokenClient, endpoint};
use crate::clock::{Clock, TokioClock, later};
use crate::credentials::ClientCredentials;
use crate::error::{BoxError, ConfigError, Error};
use crate::provider::{FetchContext, KeyMaterial, KeyedProvider, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::token::AccessToken;

/// Fetches tokens from OfficeRnD, or from another OAuth 2.0 token endpoint, by the client-credentials
/// grant (RFC 6749 section 4.4).
///
/// [`new`](Self::new) creates an HTTP client, [`with_reqwest`](Self::with_reqwest) takes yours, and
/// [`with_service`](Self::with_service) works over any tower HTTP service. Responses are read up to
/// 64 KiB, and only a 200 with a valid token is accepted.
///
/// Files and [sources](crate::credentials::CredentialSource) of credentials are loaded before each
/// token request. If that fails, or takes longer than half of the `fetch_timeout`, the last
/// credentials are used.
///
/// Credentials that the endpoint refused with `invalid_client` are not sent again for 60 s, doubling
/// to 10 min. Meanwhile files and sources are loaded every 5 s, and different credentials are sent at
/// once.
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
    client: Arc<TokenClient>,
}

impl HttpTokenProvider {
    /// Creates a provider with its own reqwest client: no redirects, no retries, no compression, no
    /// idle connections, and no proxy for plain http. It connects within 5 s, and the cache's
    /// `fetch_timeout` bounds the complete request.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for credentials, scopes, a token URL or a file that cannot be used, for
    /// a token URL of OfficeRnD without a scope, or if the client cannot be built. The client cannot be
    /// built for an https token URL without a TLS feature, or with `rustls-no-provider` before the
    /// program has installed a cryptography provider.
    #[cfg(feature = "reqwest")]
    pub fn new(credentials: ClientCredentials) -> Result<Self, ConfigError> {
        let plain = credentials.check()?.scheme_str() == Some("http");
        Self::with_reqwest(credentials, transport::reqwest_client(plain)?)
    }

    /// Creates a provider over your own client, with its proxy, root certificates and addresses.
    /// Clones of one client can be used for many providers, and for requests to the API.
    ///
    /// The client's settings, default headers and cookies apply to the token request:
    ///
    /// - Set `redirect::Policy::none()`. A client that follows redirects does not send the secret
    ///   along, and the fetch fails as [`Malformed`](crate::ErrorKind::Malformed).
    /// - A retry policy has no effect, because the body cannot be sent twice.
    /// - Set a `connect_timeout` below `fetch_timeout`, such as 5 s. A connection that was not made in
    ///   that time does not count towards the rate limit.
    /// - For a plain http token URL set `no_proxy()`: a proxy would read the secret.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for credentials, scopes, a token URL or a file that cannot be used, or
    /// for a token URL of OfficeRnD without a scope. A client without TLS fails at the first fetch.
    ///
    /// ```
    /// use officernd_auth::{ClientCredentials, HttpTokenProvider};
    /// use std::time::Duration;
    ///
    /// # #[cfg(feature = "rustls")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = reqwest::Client::builder()
    ///     .redirect(reqwest::redirect::Policy::none())
    ///     .connect_timeout(Duration::from_secs(5))
    ///     .build()?;
    /// let app = |id: &str, secret: &str| {
    ///     let credentials = ClientCredentials::new(id, secret).scope("flex.community.members.read");
    ///     HttpTokenProvider::with_reqwest(credentials, client.clone())
    /// };
    /// let (berlin, paris) = (app("berlin-id", "hunter2")?, app("paris-id", "hunter3")?);
    /// # drop((berlin, paris));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "rustls"))]
    /// # fn main() {}
    /// ```
    #[cfg(feature = "reqwest")]
    pub fn with_reqwest(
        credentials: ClientCredentials,
        client: reqwest::Client,
    ) -> Result<Self, ConfigError> {
        Self::over(credentials, transport::over_reqwest(client))
    }

    /// Creates a provider over a tower HTTP service, which is cloned for each fetch. It must not
    /// follow redirects or decompress. Its errors go to logs, so they must not quote the request, whose
    /// body contains the client secret.
    ///
    /// The service must not share a concurrency limit with the layer's requests: those that wait for a
    /// token hold all permits. A service that is not ready after nine tenths of the `fetch_timeout` is a
    /// [`Timeout`](crate::ErrorKind::Timeout) that names `poll_ready`. The token request has the
    /// extension [`SkipAuth`](crate::SkipAuth), so the service may have the layer itself.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for credentials, scopes, a token URL or a file that cannot be used, or
    /// for a token URL of OfficeRnD without a scope.
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
        Self::over(credentials, transport::over_service(service))
    }

    fn over(
        credentials: ClientCredentials,
        transport: transport::Transport,
    ) -> Result<Self, ConfigError> {
        let client = Arc::new(TokenClient::new(credentials, transport)?);
        Ok(Self { client })
    }
}

impl TokenProvider for HttpTokenProvider {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        self.client.fetch(cx).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        Some(self.client.rate_limit.clone())
    }
}

/// How long credentials may take to load for [`KeyMaterial`].
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

impl KeyedProvider for HttpTokenProvider {
    async fn key_material(&self) -> Result<KeyMaterial, Error> {
        let until = later(TokioClock.now(), LOAD_TIMEOUT);
        let app = self.client.load(&TokioClock, until).await?;
        Ok(self.client.material(app))
    }
}

impl fmt::Debug for HttpTokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the query, which may contain a key.
        let token_url = endpoint(&self.client.token_url);
        let token_url = token_url.split('?').next().unwrap_or_default();
        f.debug_struct("HttpTokenProvider")
            .field("credentials", &self.client.credentials)
            .field("token_url", &token_url)
            .finish_non_exhaustive()
    }
}
