//! One token request: loads the credentials, sends, and reads the response.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{Request, Response, Uri};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::response;
use super::transport::Transport;
use crate::backoff::backoff;
use crate::clock::{Clock, later, timeout_at};
use crate::credentials::{AppCredentials, ClientCredentials, LOAD_AGAIN};
use crate::error::{BoxError, ConfigError, Error, ErrorKind};
use crate::message::SkipAuth;
use crate::observability;
use crate::provider::{FetchContext, KeyMaterial};
use crate::rate_limit::{Permit, RateLimit};
use crate::token::AccessToken;

pub(super) struct TokenClient {
    pub(super) credentials: ClientCredentials,
    pub(super) token_url: Uri,
    pub(super) rate_limit: RateLimit,
    transport: Transport,
    /// The credentials that were loaded last.
    last: Mutex<Option<AppCredentials>>,
    failed: Mutex<Option<Failed>>,
    /// Whether a narrower scope has been reported.
    narrowed: AtomicBool,
}

/// Credentials that failed permanently.
#[derive(Clone)]
struct Failed {
    app: AppCredentials,
    error: Error,
    /// Permanent failures in a row.
    times: u32,
    /// After [`ErrorKind::InvalidClient`] they are not sent again before this.
    held_until: Instant,
}

impl TokenClient {
    pub(super) fn new(
        credentials: ClientCredentials,
        transport: Transport,
    ) -> Result<Self, ConfigError> {
        let token_url = credentials.check()?;
        Ok(Self {
            // Read now, so that setup reports errors.
            last: Mutex::new(credentials.source.read()?),
            rate_limit: RateLimit::for_url(&endpoint(&token_url)),
            credentials,
            token_url,
            transport,
            failed: Mutex::default(),
            narrowed: AtomicBool::new(false),
        })
    }

    /// Loads the credentials and sends one token request with them.
    pub(super) async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let clock = cx.clock();
        let loaded_by = later(clock.now(), cx.fetch_timeout() / 2);
        let app = self.load(clock, loaded_by).await?;
        let permit = self.permit(&cx, &app).await?;
        let result = self.request_token(&app, &cx).await;
        match &result {
            Err(error) if error.is_unsent() => permit.unsent(),
            _ => drop(permit),
        }
        self.remember(app, result, clock.now())
    }

    /// Returns the credentials to use now: the last ones if the source fails, or takes until `until`.
    pub(super) async fn load(
        &self,
        clock: &dyn Clock,
        until: Instant,
    ) -> Result<AppCredentials, Error> {
        let loaded = timeout_at(clock, until, pin!(self.credentials.source.load())).await;
        let loaded = loaded.unwrap_or_else(|| Err(BoxError::from("the source is too slow")));
        match loaded {
            Ok(app) => {
                *lock(&self.last) = Some(app.clone());
                Ok(app)
            }
            Err(error) => {
                // Unlocked again before the event: a subscriber may call this provider.
                let last = lock(&self.last).clone();
                observability::credentials_unreadable(&*error, last.is_some());
                last.ok_or_else(|| {
                    Error::new(ErrorKind::Transport, "the credentials cannot be loaded")
                        .not_attempted()
                        .with_source(error)
                        .with_retry_after(LOAD_AGAIN)
                        .with_max_backoff(LOAD_AGAIN)
                })
            }
        }
    }

    /// Takes a permit for a request with these credentials.
    ///
    /// Refused credentials are not sent again during their backoff. After it they do not wait in the
    /// queue, because the source may have different ones at any time.
    async fn permit(&self, cx: &FetchContext, app: &AppCredentials) -> Result<Permit, Error> {
        let failed = lock(&self.failed).clone();
        let Some(failed) = failed.filter(|failed| failed.app.same_as(app)) else {
            return cx.clone().not_failing().permit().await;
        };
        if failed.error.kind() != ErrorKind::InvalidClient {
            return cx.permit().await;
        }
        let at_most = match self.credentials.source.can_change() {
            true => LOAD_AGAIN,
            false => Duration::MAX,
        };
        let refused = |left: Duration| {
            let error = failed.error.clone().not_attempted();
            Err(error.with_retry_after(left.min(at_most)))
        };
        let now = cx.clock().now();
        let left = failed.held_until.saturating_duration_since(now);
        if !left.is_zero() {
            return refused(left);
        }
        let at_once = FetchContext {
            deadline: now,
            ..cx.clone()
        };
        match at_once.permit().await {
            Err(error) if error.kind() == ErrorKind::RateLimited => refused(LOAD_AGAIN),
            permit => permit,
        }
    }

    /// Remembers credentials that failed permanently.
    fn remember(
        &self,
        app: AppCredentials,
        result: Result<AccessToken, Error>,
        now: Instant,
    ) -> Result<AccessToken, Error> {
        let mut failed = lock(&self.failed);
        match &result {
            Ok(_) => *failed = None,
            Err(error) if error.is_transient() => {}
            Err(error) => {
                let before = failed.as_ref().filter(|failed| failed.app.same_as(&app));
                let times = before.map_or(0, |failed| failed.times).saturating_add(1);
                *failed = Some(Failed {
                    app,
                    error: error.clone(),
                    times,
                    held_until: later(now, backoff(error, times, 1.0)),
                });
            }
        }
        let can_change = self.credentials.source.can_change();
        result.map_err(|error| match error.kind() {
            ErrorKind::InvalidClient if can_change => error.with_max_backoff(LOAD_AGAIN),
            _ => error,
        })
    }

    async fn request_token(
        &self,
        app: &AppCredentials,
        cx: &FetchContext,
    ) -> Result<AccessToken, Error> {
        let scope = self.credentials.scope.as_deref();
        let request = self.request(app)?;
        let span = observability::token_request_span(&self.token_url);
        let response = (self.transport)(request, cx.clone());
        let response = response.instrument(span.clone()).await;
        observability::token_request_ended(&span, response.as_ref().map(Response::status));
        let token = response::parse(&response?, scope, cx.clock().wall())?;
        let narrower = response::is_narrower(scope, token.scope());
        if narrower && !self.narrowed.swap(true, Ordering::Relaxed) {
            observability::scope_narrowed(scope, token.scope());
        }
        Ok(token)
    }

    /// Builds the request (RFC 6749 section 4.4.2), with the fields in the order of OfficeRnD's documentation.
    fn request(&self, app: &AppCredentials) -> Result<Request<Bytes>, Error> {
        let scope = self.credentials.scope.as_deref();
        let params = self.credentials.form_params.iter();
        let fields = [
            ("client_id", &*app.client_id),
            ("client_secret", app.client_secret.expose()),
            ("grant_type", "client_credentials"),
        ]
        .into_iter()
        .chain(scope.map(|scope| ("scope", scope)))
        .chain(params.map(|(name, value)| (&**name, &**value)));
        let user_agent = concat!("officernd-auth/", env!("CARGO_PKG_VERSION"));
        Request::post(self.token_url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, user_agent)
            // Without it, a client that has the layer would wait for the token that this request fetches.
            .extension(SkipAuth)
            .body(form_body(fields))
            .map_err(|_| Error::new(ErrorKind::Denied, "the token request cannot be built"))
    }

    /// Returns everything that a token of these credentials depends on.
    pub(super) fn material(&self, app: AppCredentials) -> KeyMaterial {
        let url = endpoint(&self.token_url);
        let mut material = KeyMaterial::new(url, app.client_id, app.client_secret)
            .scope(self.credentials.scope.as_deref().unwrap_or_default());
        for (name, value) in &self.credentials.form_params {
            material = material.param(name, value);
        }
        match self.credentials.source.can_change() {
            true => material,
            false => material.fixed(),
        }
    }
}

/// Locks a value and ignores poisoning: a panic cannot leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the normalized token URL. Equal ones share a rate limit.
pub(super) fn endpoint(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = url.port_u16().unwrap_or(default_port);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{host}:{port}{path}")
}

/// Encodes an `application/x-www-form-urlencoded` body that is wiped with its last handle.
fn form_body<'a>(fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Bytes {
    // Allocated in full: a buffer that grows would leave bytes of the secret in freed memory.
    let lengths = fields
        .clone()
        .map(|(name, value)| 3 * (name.len() + value.len()) + 2);
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(lengths.sum()));
    form.extend_pairs(fields);
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}
