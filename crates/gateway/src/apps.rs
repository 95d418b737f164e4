//! The OfficeRnD apps of the configuration: a token layer for each, and the API's client over them.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{Empty, Full};
use hyper::Request;
use hyper::body::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::{
    AccessToken, BoxError, Error, FetchContext, HttpTokenProvider, OfficeRndAuthLayer, RateLimit,
    RetryUnauthorized, Settings, TokenProvider, TokenStatus,
};
use serde::Serialize;
use tower::Layer as _;
use tower::retry::RetryLayer;
use tower::util::{BoxCloneSyncService, MapRequest};

use crate::config::Config;
use crate::out::{HttpClient, Out, Response, chain};
use crate::problem::Failures;
use crate::store::{Shared, Store};

type Bodiless = Request<Empty<Bytes>>;

/// The gateway: its configuration, its clients and its state.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) out: Out,
    /// By slug.
    pub(crate) apps: Vec<App>,
    /// For requests with a body, which streams and so cannot be sent twice.
    pub(crate) streaming: HttpClient,
    /// For those without: a 401 is answered by a replay with the next token.
    pub(crate) replaying: BoxCloneSyncService<Bodiless, Response, BoxError>,
    pub(crate) exporter: PrometheusHandle,
    pub(crate) failures: Failures,
    /// Set on SIGTERM.
    pub(crate) leaving: AtomicBool,
}

/// One app: of an organization, or of all that the gateway serves.
pub(crate) struct App {
    /// Empty if there is one app and its organization is not configured.
    pub(crate) slug: String,
    pub(crate) settings: Settings,
    pub(crate) layer: OfficeRndAuthLayer,
    shared: Option<Shared>,
    last_error: LastError,
}

/// The last error of a provider. The cache's status has its kind only.
type LastError = Arc<Mutex<Option<Error>>>;

/// An app's token, as `/readyz`, `/metrics` and the page show it.
#[derive(Serialize)]
pub(crate) struct State {
    pub(crate) organization: String,
    /// Why the last token request failed, with its causes; `None` after a success.
    pub(crate) problem: Option<String>,
    /// Why the store is out of use.
    pub(crate) store_problem: Option<String>,
    pub(crate) status: TokenStatus,
}

impl Gateway {
    /// Builds the apps and the clients. `warm` fetches the first tokens now and keeps them fresh. The
    /// error names the setting that is missing or cannot be used.
    pub(crate) fn new(
        config: Config,
        exporter: PrometheusHandle,
        warm: bool,
    ) -> Result<Self, String> {
        let out = Out::new(config.body_timeout)?;
        let store = Store::open(&config).map_err(|error| format!("GATEWAY_STORE: {error}"))?;
        // One window for all apps, as without a setting.
        let shared = &config.officernd;
        let rate_limit = match (shared.rate_limit_requests, shared.rate_limit_per) {
            (None, None) => None,
            (requests, per) => {
                let per = per.unwrap_or(Duration::from_secs(60));
                Some(RateLimit::new(requests.unwrap_or(5), per))
            }
        };
        let several = !config.organizations.is_empty();
        let mut apps = Vec::new();
        for (slug, mut settings) in config.apps() {
            settings.keep_warm = warm;
            let place = format!("[organizations.{slug}]: ");
            let app = App::new(slug, settings, rate_limit.clone(), store.as_ref(), &out);
            apps.push(app.map_err(|error| match several {
                true => format!("{place}{error}"),
                false => error.to_string(),
            })?);
        }
        let client = out.client.clone();
        let streaming = match apps.as_slice() {
            [app] if !several => BoxCloneSyncService::new(app.layer.layer(client)),
            apps => {
                let layers = apps.iter().map(|app| (app.slug.clone(), app.layer.clone()));
                let mut layer = OrganizationsLayer::new(layers.collect::<HashMap<_, _>>());
                if let Some(default) = &config.default_organization {
                    layer = layer.default_organization(default);
                }
                BoxCloneSyncService::new(layer.layer(client))
            }
        };
        let bodiless = MapRequest::new(streaming.clone(), |request: Bodiless| {
            request.map(Body::new)
        });
        let replaying = RetryLayer::new(RetryUnauthorized::new()).layer(bodiless);
        let replaying = BoxCloneSyncService::new(replaying);
        Ok(Self {
            config,
            out,
            apps,
            streaming,
            replaying,
            exporter,
            failures: Failures::default(),
            leaving: AtomicBool::new(false),
        })
    }
}

impl App {
    fn new(
        slug: String,
        settings: Settings,
        rate_limit: Option<RateLimit>,
        store: Option<&Store>,
        out: &Out,
    ) -> Result<Self, BoxError> {
        let credentials = settings.credentials()?;
        let to_body = |request: Request<Full<Bytes>>| request.map(Body::new);
        let client = MapRequest::new(out.client.clone(), to_body);
        let provider = HttpTokenProvider::with_service(credentials, client)?;
        let last_error = LastError::default();
        let shared = store.map(|store| store.share(provider.clone()));
        let builder = match shared.clone() {
            Some(shared) => settings.builder(Remembering(shared, Arc::clone(&last_error))),
            None => settings.builder(Remembering(provider, Arc::clone(&last_error))),
        };
        let builder = match rate_limit {
            Some(rate_limit) => builder.rate_limit(rate_limit),
            None => builder,
        };
        Ok(Self {
            layer: builder.build()?,
            slug,
            settings,
            shared,
            last_error,
        })
    }

    pub(crate) fn state(&self) -> State {
        let status = self.layer.cache().status();
        let last = self.last_error.lock();
        let last = last.unwrap_or_else(PoisonError::into_inner);
        let problem = status.last_error.map(|kind| match &*last {
            Some(error) if error.kind() == kind => chain(error),
            _ => kind.to_string(),
        });
        let store = self.shared.as_ref().map(Shared::status);
        let unavailable = store.filter(|store| !store.available);
        State {
            organization: self.slug.clone(),
            problem,
            store_problem: unavailable.map(|store| store.last_error.unwrap_or_default()),
            status,
        }
    }
}

/// A provider that keeps its last error.
struct Remembering<P>(P, LastError);

impl<P: TokenProvider> TokenProvider for Remembering<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let result = self.0.fetch(cx).await;
        // An error that was not attempted would hide the one whose backoff it waits for.
        if let Err(error) = &result
            && (!error.is_not_attempted() || error.source().is_some())
        {
            let mut last = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(error.clone());
        }
        result
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.0.rate_limit()
    }
}
