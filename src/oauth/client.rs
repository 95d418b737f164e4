//! One token request: loads the credentials, sends, and reads the answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Instrument as _;

use super::answer;
use super::request::RequestTemplate;
use super::transport::{ReadyBy, Transport};
use crate::backoff::backoff;
use crate::clock::later;
use crate::credentials::{AppCredentials, Loader};
use crate::error::{Error, ErrorKind};
use crate::observability;
use crate::provider::{FetchContext, KeyMaterial};
use crate::rate_limit::Permit;
use crate::token::AccessToken;

/// Credentials that were refused may be corrected: they are loaded again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct TokenClient {
    pub(super) loader: Loader,
    pub(super) template: RequestTemplate,
    transport: Box<dyn Transport>,
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
        loader: Loader,
        template: RequestTemplate,
        transport: Box<dyn Transport>,
    ) -> Self {
        Self {
            loader,
            template,
            transport,
            failed: Mutex::default(),
            narrowed: AtomicBool::new(false),
        }
    }

    /// Loads the credentials and sends one token request with them.
    pub(super) async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let (clock, timeout) = (cx.clock(), cx.fetch_timeout());
        let loaded_by = later(clock.now(), timeout / 2);
        let credentials = self.loader.load(clock, loaded_by).await?;
        let permit = self.permit(&cx, &credentials).await?;
        // Before the fetch itself times out, which would not show the cause.
        let at = later(clock.now(), timeout / 10 * 9);
        let ready_by = ReadyBy { clock, at };
        let result = self.request_token(&credentials, ready_by).await;
        match &result {
            Err(error) if error.is_unsent() => permit.unsent(),
            _ => drop(permit),
        }
        self.remember(&credentials, result, clock.now())
    }

    /// Takes a permit for a request with these credentials.
    ///
    /// Credentials that the endpoint has refused are not sent again during their backoff. After it
    /// they do not wait for a turn either, because the source may have other ones any time.
    async fn permit(
        &self,
        cx: &FetchContext,
        credentials: &AppCredentials,
    ) -> Result<Permit, Error> {
        let now = cx.clock().now();
        let failed = self.lock().clone();
        let Some(failed) = failed.filter(|failed| failed.credentials.same_as(credentials)) else {
            return cx.clone().not_failing().permit().await;
        };
        if failed.error.kind() != ErrorKind::InvalidClient {
            return cx.permit().await;
        }
        let refused = |left: Duration| {
            let left = match self.loader.can_change() {
                true => left.min(LOOK_AGAIN),
                false => left,
            };
            Err(failed.error.clone().not_attempted().with_retry_after(left))
        };
        let left = failed.held_until.saturating_duration_since(now);
        if !left.is_zero() {
            return refused(left);
        }
        if !self.loader.can_change() {
            return cx.permit().await;
        }
        let at_once = FetchContext {
            deadline: now,
            ..cx.clone()
        };
        match at_once.permit().await {
            Err(error) if error.kind() == ErrorKind::RateLimited => refused(LOOK_AGAIN),
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
                let before = failed
                    .as_ref()
                    .filter(|failed| failed.credentials.same_as(credentials));
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
            ErrorKind::InvalidClient if can_change => error.with_max_backoff(LOOK_AGAIN),
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
        ready_by: ReadyBy<'_>,
    ) -> Result<AccessToken, Error> {
        let template = &self.template;
        let request = template.request(credentials)?;
        let clock = ready_by.clock;
        let span = observability::TokenRequest::new(&template.token_url);
        let response = self.transport.post(request, ready_by);
        let response = response.instrument(span.0.clone()).await;
        match &response {
            Ok(response) => span.answered(response.status),
            Err(error) => span.failed(error),
        }
        let response = response?;
        let granted = answer::parse(
            response.status,
            &response.headers,
            &response.body,
            template.scope.as_deref(),
            clock.wall(),
        )?;
        if granted.narrowed && !self.narrowed.swap(true, Ordering::Relaxed) {
            observability::scope_narrowed(template.scope.as_deref(), granted.token.scope());
        }
        Ok(granted.token)
    }

    /// Returns all that a token of these credentials depends on.
    pub(super) fn material(&self, pair: &AppCredentials) -> KeyMaterial {
        let (id, secret) = (pair.client_id.clone(), pair.client_secret.clone());
        let endpoint = self.template.endpoint();
        let material = KeyMaterial::new(endpoint, id, secret)
            .scope(self.template.scope.as_deref().unwrap_or_default());
        let params = self.template.form_params.iter();
        let material = params.fold(material, |material, (name, value)| {
            material.param(name, value)
        });
        match self.loader.can_change() {
            true => material,
            false => material.fixed(),
        }
    }
}
