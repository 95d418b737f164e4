//! The provider that talks to OfficeRnD, or to any OAuth 2.0 token endpoint.

#[cfg(feature = "reqwest")]
mod client;
mod json;
mod response;
mod retry_after;
mod transport;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use self::transport::{Exchange, Via};
#[cfg(any(fuzzing, test))]
pub(crate) use self::{response::parse_answer, retry_after::parse as retry_after};
use crate::allowance::{self, Allowance};
use crate::credentials::ClientCredentials;
use crate::error::{BoxError, ConfigError, Error, ErrorKind};
use crate::observability;
use crate::provider::{FetchContext, TokenProvider};
use crate::secret::Secret;
use crate::token::AccessToken;

/// Fetches tokens by the client-credentials grant (RFC 6749 §4.4), as OfficeRnD
/// documents it: a POST with the four fields in a form.
///
/// It works over any tower HTTP service ([`with_service`](Self::with_service));
/// [`new`](Self::new) brings reqwest. It follows no redirect (a 307 would
/// replay the secret), takes no compression, reads 64 KiB at most, and takes
/// nothing for a token but a token answer.
///
/// A secret that comes from a file or closure is read again at each fetch, and
/// once more when the server does not know the client: if it has changed, the
/// new one is tried at once.
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
    token_url: Uri,
    scope: Option<String>,
    /// The last secret that could be read: what serves while its file is away.
    secret: Mutex<Secret>,
    exchange: Box<dyn Exchange>,
    allowance: Allowance,
    told_of_narrower_scope: AtomicBool,
}

impl HttpTokenProvider {
    /// A provider with an HTTP client of its own (reqwest, rustls): 5 s to
    /// connect, 30 s in all, no redirects, no compression, no idle
    /// connections. The cache's `fetch_timeout` ends a fetch earlier.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for credentials, scopes, a token URL or a secret file
    /// that cannot be used, or if the client cannot be built.
    #[cfg(feature = "reqwest")]
    pub fn new(credentials: ClientCredentials) -> Result<Self, ConfigError> {
        Self::with_reqwest(credentials, reqwest::Client::builder())
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
        client: reqwest::ClientBuilder,
    ) -> Result<Self, ConfigError> {
        let plain = credentials.check()?.scheme_str() == Some("http");
        let exchange = client::Reqwest::new(client, plain)?;
        Self::over(credentials, Box::new(exchange))
    }

    /// The same over a tower HTTP service. It must not follow redirects nor
    /// decompress, and is cloned for each fetch.
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
    /// let credentials = ClientCredentials::new("client-id", "client-secret");
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
        Self::over(credentials, Box::new(Via(service)))
    }

    fn over(
        credentials: ClientCredentials,
        exchange: Box<dyn Exchange>,
    ) -> Result<Self, ConfigError> {
        let token_url = credentials.check()?;
        let secret = credentials.read_secret()?;
        Ok(Self {
            inner: Arc::new(Inner {
                scope: credentials.asked_scope(),
                allowance: allowance::for_endpoint(&normal(&token_url), &credentials.client_id),
                secret: Mutex::new(secret),
                told_of_narrower_scope: AtomicBool::new(false),
                credentials,
                token_url,
                exchange,
            }),
        })
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
        let inner = &*self.inner;
        let secret = inner.read_secret();
        let first = inner.ask(&secret, &cx).await;
        match first {
            Err(error) if error.kind() == ErrorKind::InvalidClient => {
                let again = inner.read_secret();
                if again.expose() == secret.expose() {
                    return Err(error);
                }
                // At once or not at all: the cache's own permit stands in the
                // way until this fetch is over. The next one reads the secret.
                let now = FetchContext {
                    deadline: cx.clock().now(),
                    ..cx.clone()
                };
                let Ok(_permit) = now.permit().await else {
                    return Err(error);
                };
                inner.ask(&again, &cx).await
            }
            other => other,
        }
    }

    fn allowance(&self) -> Option<Allowance> {
        Some(self.inner.allowance.clone())
    }
}

#[cfg(feature = "store")]
impl crate::fleet::KeyedProvider for HttpTokenProvider {
    async fn key_material(&self) -> Result<crate::fleet::KeyMaterial, Error> {
        let Inner {
            credentials,
            token_url,
            scope,
            ..
        } = &*self.inner;
        let (id, secret) = (&*credentials.client_id, self.inner.read_secret());
        let material = crate::fleet::KeyMaterial::new(normal(token_url), id, secret)
            .scope(scope.as_deref().unwrap_or_default());
        let params = credentials.form_params.iter();
        Ok(params.fold(material, |material, (name, value)| {
            material.param(name, value)
        }))
    }
}

impl Inner {
    /// The secret as it is now; the last good one if that cannot be read.
    fn read_secret(&self) -> Secret {
        let last = || self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if self.credentials.secret_can_change() {
            // Not under the lock: it may take long, and may be a user's code.
            match self.credentials.read_secret() {
                Ok(secret) => {
                    last().clone_from(&secret);
                    return secret;
                }
                Err(error) => observability::secret_unreadable(&error),
            }
        }
        last().clone()
    }

    async fn ask(&self, secret: &Secret, cx: &FetchContext) -> Result<AccessToken, Error> {
        let request = self.request(secret)?;
        let answer = self.exchange.post(request).await;
        let answer = answer.map_err(|error| transport::without(error, &self.spellings(secret)))?;
        let answer = response::parse_answer(
            answer.status,
            &answer.headers,
            &answer.body,
            self.scope.as_deref(),
            cx.clock().wall(),
        )?;
        if answer.narrowed && !self.told_of_narrower_scope.swap(true, Ordering::Relaxed) {
            observability::scope_narrowed(self.scope.as_deref(), answer.scope.as_deref());
        }
        let token = AccessToken::bearer(answer.token, answer.expires_in)?;
        Ok(match answer.scope {
            Some(scope) => token.with_scope(scope),
            None => token,
        })
    }

    /// How the request writes the secret, and how a `Debug` of it would.
    fn spellings(&self, secret: &Secret) -> Vec<Zeroizing<String>> {
        let secret = secret.expose();
        let escaped = Zeroizing::new(secret.escape_debug().to_string());
        let mut all = vec![Zeroizing::new(secret.to_owned()), escaped, encoded(secret)];
        if self.credentials.basic_auth {
            all.push(basic_pair(&self.credentials.client_id, secret));
        }
        all
    }

    fn request(&self, secret: &Secret) -> Result<Request<Bytes>, Error> {
        let credentials = &self.credentials;
        let in_form = !credentials.basic_auth;
        let client_id = in_form.then_some(("client_id", credentials.client_id.as_str()));
        let client_secret = in_form.then_some(("client_secret", secret.expose()));
        let grant = [("grant_type", "client_credentials")];
        let scope = self.scope.as_deref().map(|scope| ("scope", scope));
        let more = credentials.form_params.iter();
        // In the order of OfficeRnD's documentation.
        let fields = client_id
            .into_iter()
            .chain(client_secret)
            .chain(grant)
            .chain(scope)
            .chain(more.map(|(name, value)| (name.as_str(), value.as_str())));
        let mut request = Request::post(self.token_url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(
                USER_AGENT,
                concat!("officernd-auth/", env!("CARGO_PKG_VERSION")),
            );
        if credentials.basic_auth {
            request = request.header(AUTHORIZATION, basic(&credentials.client_id, secret)?);
        }
        request
            .body(response::form_body(fields))
            .map_err(|_| Error::new(ErrorKind::Denied, "the token request cannot be built"))
    }
}

fn basic(client_id: &str, secret: &Secret) -> Result<HeaderValue, Error> {
    let pair = basic_pair(client_id, secret.expose());
    let value = Zeroizing::new(["Basic ", &pair].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))
        .map_err(|_| Error::new(ErrorKind::Denied, "the credentials are no header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 6749 §2.3.1: both are form-encoded before they are joined.
fn basic_pair(client_id: &str, secret: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new([&*encoded(client_id), ":", &encoded(secret)].concat());
    Zeroizing::new(STANDARD.encode(&*pair))
}

fn encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    encoded.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    encoded
}

impl fmt::Debug for HttpTokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some gateways take a key in the query.
        let token_url = normal(&self.inner.token_url);
        let token_url = token_url.split('?').next().unwrap_or_default();
        f.debug_struct("HttpTokenProvider")
            .field("credentials", &self.inner.credentials)
            .field("token_url", &token_url)
            .finish_non_exhaustive()
    }
}
