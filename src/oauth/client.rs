//! One token request: loads the credentials, sends, and reads the response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Response, Uri};
use tracing::Instrument as _;

use super::transport::Transport;
use super::{answer, request};
use crate::backoff::backoff;
use crate::clock::later;
use crate::credentials::{AppCredentials, ClientCredentials, LOAD_AGAIN, Loader};
use crate::error::{ConfigError, Error, ErrorKind};
use crate::observability;
use crate::provider::{FetchContext, KeyMaterial};
use crate::rate_limit::{Permit, RateLimit};
use crate::token::AccessToken;

pub(super) struct TokenClient {
    pub(super) credentials: ClientCredentials,
    pub(super) loader: Loader,
    pub(super) token_url: Uri,
    pub(super) rate_limit: RateLimit,
    /// With one space between two scopes.
    scope: Option<String>,
    transport: Transport,
    failed: Mutex<Option<Failed>>,
    /// A narrower scope is reported once.
    narrowed: AtomicBool,
}

/// Credentials that the endpoint answered with a permanent failure.
#[derive(Clone)]
struct Failed {
    credentials: AppCredentials,
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
            loader: Loader::new(credentials.source.clone())?,
            rate_limit: RateLimit::for_url(&request::endpoint(&token_url)),
            scope: credentials.asked_scope(),
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
        let credentials = self.loader.load(clock, loaded_by).await?;
        let permit = self.permit(&cx, &credentials).await?;
        let result = self.request_token(&credentials, &cx).await;
        match &result {
            Err(error) if error.is_unsent() => permit.unsent(),
            _ => drop(permit),
        }
        self.remember(&credentials, result, clock.now())
    }

    /// Takes a permit for a request with these credentials.
    ///
    /// Credentials that the endpoint has refused are not sent again during their backoff. After it they
    /// do not wait in the queue, because the source may have others any time.
    async fn permit(
        &self,
        cx: &FetchContext,
        credentials: &AppCredentials,
    ) -> Result<Permit, Error> {
        let failed = self.lock().clone();
        let Some(failed) = failed.filter(|failed| failed.credentials.same_as(credentials)) else {
            return cx.clone().not_failing().permit().await;
        };
        if failed.error.kind() != ErrorKind::InvalidClient {
            return cx.permit().await;
        }
        let at_most = if self.loader.can_change() {
            LOAD_AGAIN
        } else {
            Duration::MAX
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
        credentials: &AppCredentials,
        result: Result<AccessToken, Error>,
        now: Instant,
    ) -> Result<AccessToken, Error> {
        let mut failed = self.lock();
        match &result {
            Ok(_) => *failed = None,
            Err(error) if error.is_transient() => {}
            Err(error) => {
                let before = failed.as_ref();
                let before = before.filter(|failed| failed.credentials.same_as(credentials));
                let times = before.map_or(0, |failed| failed.times).saturating_add(1);
                *failed = Some(Failed {
                    credentials: credentials.clone(),
                    error: error.clone(),
                    times,
                    held_until: later(now, backoff(error, times, 1.0)),
                });
            }
        }
        let can_change = self.loader.can_change();
        result.map_err(|error| match error.kind() {
            ErrorKind::InvalidClient if can_change => error.with_max_backoff(LOAD_AGAIN),
            _ => error,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failed>> {
        // An option is whole between any two statements.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request_token(
        &self,
        credentials: &AppCredentials,
        cx: &FetchContext,
    ) -> Result<AccessToken, Error> {
        let scope = self.scope.as_deref();
        let params = &self.credentials.form_params;
        let request = request::build(&self.token_url, credentials, scope, params)?;
        let span = observability::TokenRequest::new(&self.token_url);
        let response = (self.transport)(request, cx.clone());
        let response = response.instrument(span.0.clone()).await;
        span.ended(response.as_ref().map(Response::status));
        let token = answer::parse(&response?, scope, cx.clock().wall())?;
        let narrower = answer::is_narrower(scope, token.scope());
        if narrower && !self.narrowed.swap(true, Ordering::Relaxed) {
            observability::scope_narrowed(scope, token.scope());
        }
        Ok(token)
    }

    /// Returns all that a token of these credentials depends on.
    pub(super) fn material(&self, pair: &AppCredentials) -> KeyMaterial {
        let (id, secret) = (pair.client_id.clone(), pair.client_secret.clone());
        let material = KeyMaterial::new(request::endpoint(&self.token_url), id, secret)
            .scope(self.scope.as_deref().unwrap_or_default());
        let params = self.credentials.form_params.iter();
        let material = params.fold(material, |material, (name, value)| {
            material.param(name, value)
        });
        match self.loader.can_change() {
            true => material,
            false => material.fixed(),
        }
    }
}
