//! The OfficeRnD apps of the configuration: a token layer for each, and the API's client over them.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{Empty, Full};
use hyper::Request;
use hyper::body::Bytes;
use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::{
    AccessToken, BoxError, Error, FetchContext, HttpTokenProvider, OfficeRndAuthLayer, RateLimit,
    RetryUnauthorized, Settings, TokenProvider, TokenStatus,
};
use serde::Serialize;
use tower::retry::RetryLayer;
use tower::util::{BoxCloneSyncService, MapRequest};
use tower::{Layer, Service};

use crate::config::Config;
use crate::out::{HttpClient, Out, Response, chain};
use crate::store::{self, Shared, Store};

type Bodiless = Request<Empty<Bytes>>;
type BodilessClient = MapRequest<HttpClient, fn(Bodiless) -> Request<Body>>;

/// The client of the API with the token layer over it.
#[derive(Clone)]
pub(crate) struct Upstream {
    /// For requests with a body, which streams and so cannot be sent twice.
    pub(crate) streaming: BoxCloneSyncService<Request<Body>, Response, BoxError>,
    /// For those without: a 401 is answered by a replay with the next token.
    pub(crate) replaying: BoxCloneSyncService<Bodiless, Response, BoxError>,
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

/// Builds the apps, in the order of their slugs, and the client over them. `warm` fetches the first
/// tokens now, and keeps them fresh without requests.
///
/// # Errors
///
/// Names the setting that is missing or cannot be used.
pub(crate) fn build(
    config: &Config,
    out: &Out,
    warm: bool,
) -> Result<(Vec<App>, Upstream), String> {
    let store = Store::open(config).map_err(|error| format!("GATEWAY_STORE: {error}"))?;
    // One window for all apps, as without a setting.
    let (requests, per) = (
        config.officernd.rate_limit_requests,
        config.officernd.rate_limit_per,
    );
    let per_minute = Duration::from_secs(60);
    let rate_limit = (requests.is_some() || per.is_some())
        .then(|| RateLimit::new(requests.unwrap_or(5), per.unwrap_or(per_minute)));
    let mut apps = Vec::new();
    for (slug, mut settings) in config.apps() {
        settings.keep_warm = warm;
        let place = match config.organizations.is_empty() {
            true => String::new(),
            false => format!("[organizations.{slug}]: "),
        };
        let app = App::new(slug, settings, rate_limit.clone(), store.as_ref(), out);
        apps.push(app.map_err(|error| format!("{place}{error}"))?);
    }
    let upstream = match apps.as_slice() {
        [app] if config.organizations.is_empty() => Upstream::new(&app.layer, out),
        apps => {
            let layers = apps.iter().map(|app| (app.slug.clone(), app.layer.clone()));
            let mut layer = OrganizationsLayer::new(layers.collect::<HashMap<_, _>>());
            if let Some(default) = &config.default_organization {
                layer = layer.default_organization(default);
            }
            Upstream::new(&layer, out)
        }
    };
    Ok((apps, upstream))
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
        let last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let problem = status.last_error.map(|kind| match &*last {
            Some(error) if error.kind() == kind => chain(error),
            _ => kind.to_string(),
        });
        State {
            organization: self.slug.clone(),
            problem,
            store_problem: self.shared.as_ref().and_then(store::problem),
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

impl Upstream {
    fn new<L, Streaming, Replaying>(layer: &L, out: &Out) -> Self
    where
        L: Layer<HttpClient, Service = Streaming> + Layer<BodilessClient, Service = Replaying>,
        Streaming: Service<Request<Body>, Response = Response, Error = BoxError>,
        Streaming: Clone + Send + Sync + 'static,
        Streaming::Future: Send,
        Replaying: Service<Bodiless, Response = Response, Error = BoxError>,
        Replaying: Clone + Send + Sync + 'static,
        Replaying::Future: Send,
    {
        let client = out.client.clone();
        let bodiless: BodilessClient =
            MapRequest::new(client.clone(), |request| request.map(Body::new));
        let retry = RetryLayer::new(RetryUnauthorized::new());
        Self {
            streaming: BoxCloneSyncService::new(layer.layer(client)),
            replaying: BoxCloneSyncService::new(retry.layer(layer.layer(bodiless))),
        }
    }
}
