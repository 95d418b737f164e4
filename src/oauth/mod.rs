//! The provider that talks to OfficeRnD, or to any OAuth 2.0 token endpoint.

mod request;
#[cfg(feature = "reqwest")]
mod reqwest;
mod response;
mod retry_after;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(feature = "store")]
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use self::request::RequestTemplate;
use self::transport::{ReadyBy, ServiceTransport, Transport};
use crate::allowance::{self, Allowance};
use crate::clock::later;
#[cfg(feature = "store")]
use crate::clock::{Clock, TokioClock};
use crate::credentials::{AppCredentials, ClientCredentials, Loader};
use crate::error::{BoxError, ConfigError, Error, ErrorKind};
use crate::observability;
use crate::provider::{FetchContext, TokenProvider};
use crate::token::AccessToken;

/// Fetches tokens from OfficeRnD, or from another OAuth 2.0 token endpoint, by the
/// client-credentials grant (RFC 6749 section 4.4).
///
/// It works over any tower HTTP service ([`with_service`](Self::with_service));
/// [`new`](Self::new) brings reqwest. It follows no redirect (a 307 would
/// replay the secret), takes no compression, reads 64 KiB at most, and takes
/// nothing for a token but a token answer.
///
/// Credentials in files and those of a
/// [`CredentialSource`](crate::credentials::CredentialSource) are loaded before
/// each token request. While that fails, or takes longer than half of the
/// `fetch_timeout`, the last pair that could be loaded is used.
///
/// ```
/// # #[cfg(feature = "reqwest")]
/// # fn main() -> Result<(), officernd_auth::ConfigError> {
/// use officernd_auth::{ClientCredentials, HttpTokenProvider, OfficeRndAuthLayer};
///
/// let credentials = ClientCredentials::new("client-id", "client-secret")
///     .scope("officernd.api.read");
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
    loader: Loader,
    template: RequestTemplate,
    transport: Box<dyn Transport>,
    allowance: Allowance,
    /// The narrower scope is reported once.
    narrowed: AtomicBool,
}

impl HttpTokenProvider {
    /// A provider with an HTTP client of its own (reqwest, rustls): 5 s to
    /// connect, 30 s in all, no redirects, no compression, no idle
    /// connections. The cache's `fetch_timeout` ends a fetch earlier.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for credentials, scopes, a token URL or a file that
    /// cannot be used, for a token URL of OfficeRnD without a scope, or if the
    /// client cannot be built.
    #[cfg(feature = "reqwest")]
    pub fn new(credentials: ClientCredentials) -> Result<Self, ConfigError> {
        Self::with_reqwest(credentials, ::reqwest::Client::builder())
    }

    /// The same with your own client settings: proxies, roots, addresses. We
    /// set redirects, retries, compression, pooling and timeouts. A plain http
    /// token URL, which is on this machine, goes through no proxy.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
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

    /// The same over a tower HTTP service, which is cloned for each fetch. It
    /// must not follow redirects nor decompress.
    ///
    /// Give it a client of its own: one that is not behind a limit that the
    /// layer's requests share. Requests that wait for a token hold their
    /// permits, and the token request would never get one. A client that is not
    /// ready after nine tenths of the `fetch_timeout` is a
    /// [`Timeout`](ErrorKind::Timeout) that names `poll_ready`.
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
    ///     .scope("officernd.api.read");
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
        static NEXT_SOURCE: AtomicU64 = AtomicU64::new(1);

        let token_url = credentials.check()?;
        let loader = Loader::new(credentials.source.clone())?;
        // The client id of a source is not known yet, and may change.
        let client = loader
            .client_id()
            .unwrap_or_else(|| format!("source {}", NEXT_SOURCE.fetch_add(1, Ordering::Relaxed)));
        Ok(Self {
            inner: Arc::new(Inner {
                allowance: allowance::for_endpoint(&normal(&token_url), &client),
                template: RequestTemplate {
                    token_url,
                    scope: credentials.asked_scope(),
                    form_params: credentials.form_params.clone(),
                    basic_auth: credentials.basic_auth,
                },
                credentials,
                loader,
                transport,
                narrowed: AtomicBool::new(false),
            }),
        })
    }

    /// Loads the credentials and sends one token request with them. With `retry`
    /// it sends another one at once if the endpoint does not know a pair that has
    /// been replaced meanwhile, and if the allowance has room for it.
    async fn request_token(
        &self,
        cx: &FetchContext,
        retry: bool,
    ) -> (Result<AccessToken, Error>, Option<AppCredentials>) {
        let inner = &*self.inner;
        let (clock, start, timeout) = (cx.clock(), cx.clock().now(), cx.fetch_timeout());
        // Before the fetch itself times out, which would not show the cause.
        let (loaded_by, ready_by) = (later(start, timeout / 2), later(start, timeout / 10 * 9));
        let mut retry_permit = None;
        loop {
            let credentials = match inner.loader.load(clock, loaded_by).await {
                Ok(credentials) => credentials,
                Err(error) => return (Err(error), None),
            };
            inner.loader.used(&credentials);
            let ready_by = ReadyBy {
                clock,
                at: ready_by,
            };
            let result = inner.request_token(&credentials, ready_by).await;
            let refused = |error: &Error| error.kind() == ErrorKind::InvalidClient;
            let refused = result.as_ref().is_err_and(refused);
            if !retry || !refused || retry_permit.is_some() || !inner.loader.changed().await {
                return (result, Some(credentials));
            }
            // At once or not at all: waiting would keep the cache's permit.
            let at_once = FetchContext {
                deadline: clock.now(),
                ..cx.clone()
            };
            let Ok(permit) = at_once.permit().await else {
                return (result, Some(credentials));
            };
            retry_permit = Some(permit);
        }
    }
}

/// One endpoint, one spelling.
fn normal(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let port = url
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{host}:{port}{path}")
}

impl TokenProvider for HttpTokenProvider {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        self.request_token(&cx, true).await.0
    }

    fn allowance(&self) -> Option<Allowance> {
        Some(self.inner.allowance.clone())
    }

    async fn credentials_changed(&self) -> bool {
        self.inner.loader.changed().await
    }
}

/// How long credentials may take to load for the key of a shared token.
#[cfg(feature = "store")]
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(feature = "store")]
impl crate::fleet::KeyedProvider for HttpTokenProvider {
    async fn key_material(&self) -> Result<crate::fleet::KeyMaterial, Error> {
        let until = later(TokioClock.now(), LOAD_TIMEOUT);
        let pair = self.inner.loader.load(&TokioClock, until).await?;
        Ok(self.inner.material(&pair))
    }

    async fn mint(&self, cx: FetchContext) -> crate::fleet::Minted {
        // A second request would have no place in the window of the fleet.
        let (result, credentials) = self.request_token(&cx, false).await;
        let material = credentials.map(|pair| self.inner.material(&pair));
        crate::fleet::Minted::new(result, material)
    }
}

impl Inner {
    async fn request_token(
        &self,
        credentials: &AppCredentials,
        ready_by: ReadyBy<'_>,
    ) -> Result<AccessToken, Error> {
        let template = &self.template;
        let request = template.request(credentials)?;
        let clock = ready_by.clock;
        let response = self.transport.post(request, ready_by).await;
        let response = response
            .map_err(|error| transport::redact(error, &template.secret_forms(credentials)))?;
        let granted = response::parse(
            response.status,
            &response.headers,
            &response.body,
            template.scope.as_deref(),
            clock.wall(),
        )?;
        if granted.narrowed && !self.narrowed.swap(true, Ordering::Relaxed) {
            observability::scope_narrowed(template.scope.as_deref(), granted.scope.as_deref());
        }
        let token = AccessToken::bearer(granted.token, granted.expires_in)?;
        Ok(match granted.scope {
            Some(scope) => token.with_scope(scope),
            None => token,
        })
    }

    #[cfg(feature = "store")]
    fn material(&self, pair: &AppCredentials) -> crate::fleet::KeyMaterial {
        let (id, secret) = (pair.client_id.clone(), pair.client_secret.clone());
        let endpoint = normal(&self.template.token_url);
        let material = crate::fleet::KeyMaterial::new(endpoint, id, secret)
            .scope(self.template.scope.as_deref().unwrap_or_default());
        let params = self.template.form_params.iter();
        params.fold(material, |material, (name, value)| {
            material.param(name, value)
        })
    }
}

impl fmt::Debug for HttpTokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some gateways take a key in the query.
        let token_url = normal(&self.inner.template.token_url);
        let token_url = token_url.split('?').next().unwrap_or_default();
        f.debug_struct("HttpTokenProvider")
            .field("credentials", &self.inner.credentials)
            .field("token_url", &token_url)
            .finish_non_exhaustive()
    }
}
