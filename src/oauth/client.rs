//! One token request: loads the credentials, sends, and reads the answer.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Instrument as _;

use super::answer;
use super::request::RequestTemplate;
use super::transport::{ReadyBy, Transport};
use crate::clock::later;
use crate::credentials::{AppCredentials, Loader};
use crate::error::{Error, ErrorKind};
use crate::observability;
use crate::provider::FetchContext;
use crate::rate_limit::Permit;
use crate::token::AccessToken;

pub(super) struct TokenClient {
    pub(super) loader: Loader,
    pub(super) template: RequestTemplate,
    transport: Box<dyn Transport>,
    /// A narrower scope is reported once.
    narrowed: AtomicBool,
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
            narrowed: AtomicBool::new(false),
        }
    }

    /// Loads the credentials and sends one token request with them. Sends another
    /// one at once if the endpoint does not know a pair that has been replaced
    /// meanwhile, and if the rate limit has room for it.
    pub(super) async fn fetch(&self, cx: &FetchContext) -> Result<AccessToken, Error> {
        let (clock, start, timeout) = (cx.clock(), cx.clock().now(), cx.fetch_timeout());
        // Before the fetch itself times out, which would not show the cause.
        let (loaded_by, ready_by) = (later(start, timeout / 2), later(start, timeout / 10 * 9));
        let mut retry_permit = None;
        loop {
            let credentials = self.loader.load(clock, loaded_by).await?;
            self.loader.used(&credentials);
            let ready_by = ReadyBy {
                clock,
                at: ready_by,
            };
            let result = self.request_token(&credentials, ready_by).await;
            let refused = |error: &Error| error.kind() == ErrorKind::InvalidClient;
            let refused = result.as_ref().is_err_and(refused);
            if let Some(permit) = retry_permit {
                return Self::retried(result, permit);
            }
            if !refused || !self.loader.changed().await {
                return result;
            }
            // At once or not at all: waiting would keep the cache's permit.
            let at_once = FetchContext {
                deadline: clock.now(),
                ..cx.clone()
            };
            let Ok(permit) = at_once.permit().await else {
                return result;
            };
            retry_permit = Some(permit);
        }
    }

    /// Ends a second request, with a permit of its own.
    fn retried(result: Result<AccessToken, Error>, permit: Permit) -> Result<AccessToken, Error> {
        result.map_err(|error| {
            if error.is_unsent() {
                permit.unsent();
            }
            // The first request was sent, with the permit of the cache.
            error.mark_unsent(false)
        })
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

    /// What a token of these credentials depends on.
    #[cfg(feature = "store")]
    pub(super) fn material(&self, pair: &AppCredentials) -> crate::fleet::KeyMaterial {
        let (id, secret) = (pair.client_id.clone(), pair.client_secret.clone());
        let endpoint = self.template.endpoint();
        let material = crate::fleet::KeyMaterial::new(endpoint, id, secret)
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
