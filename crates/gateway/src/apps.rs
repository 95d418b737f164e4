//! One token layer for each OfficeRnD app in the configuration, and the API's client above them.

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
use crate::out::{self, HttpClient, Response, chain};
use crate::problem::Failures;
use crate::store::{self, Share, Shared};

type Bodiless = Request<Empty<Bytes>>;

/// The configuration, the clients and the state of the running gateway.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    /// Adds no token.
    pub(crate) client: HttpClient,
    /// In the order of their slugs.
    pub(crate) apps: Vec<App>,
    /// Adds the token. For requests with a body, which streams and so cannot be sent twice.
    pub(crate) streaming: HttpClient,
    /// Like `streaming`, for requests without a body: replays them with the next token after a 401.
    pub(crate) replaying: BoxCloneSyncService<Bodiless, Response, BoxError>,
    pub(crate) exporter: PrometheusHandle,
    pub(crate) failures: Failures,
    pub(crate) shutting_down: AtomicBool,
}

/// One OfficeRnD app with its token.
pub(crate) struct App {
    /// Empty for a single app without `org_slug`.
    pub(crate) slug: String,
    pub(crate) settings: Settings,
    pub(crate) layer: OfficeRndAuthLayer,
    shared: Option<Shared>,
    last_error: LastError,
}

/// The last error of a provider: the cache's status has only its kind.
type LastError = Arc<Mutex<Option<Error>>>;

/// The state of an app's token that `/readyz`, `/metrics` and the status page show.
#[derive(Serialize)]
pub(crate) struct State {
    pub(crate) organization: String,
    /// Why the last token request failed; `None` after a success.
    pub(crate) problem: Option<String>,
    /// Why the store is unavailable.
    pub(crate) store_problem: Option<String>,
    pub(crate) status: TokenStatus,
}

impl Gateway {
    /// Builds the apps and the clients. With `warm`, tokens are fetched at once and kept fresh. The
    /// error names the missing or invalid setting.
    pub(crate) fn new(
        config: Config,
        exporter: PrometheusHandle,
        warm: bool,
    ) -> Result<Self, String> {
        let client = out::client(config.body_timeout)?;
        let share = store::open(&config).map_err(|error| format!("GATEWAY_STORE: {error}"))?;
        let several = !config.organizations.is_empty();
        let mut settings = config.organizations.clone();
        if !several {
            let slug = config.org_slug.clone().unwrap_or_default();
            settings.insert(slug, config.officernd.clone());
        }
        let mut limits = HashMap::new();
        let mut apps = Vec::new();
        for (slug, mut settings) in settings {
            settings.keep_warm = warm;
            // Apps with the same setting share one window, like apps without one.
            let limit = (settings.rate_limit_requests, settings.rate_limit_per);
            let rate_limit = (limit != (None, None)).then(|| {
                let per = limit.1.unwrap_or(Duration::from_secs(60));
                let new = || RateLimit::new(limit.0.unwrap_or(5), per);
                limits.entry(limit).or_insert_with(new).clone()
            });
            let place = format!("[organizations.{slug}]: ");
            let app = App::new(slug, settings, rate_limit, share.as_ref(), &client);
            apps.push(app.map_err(|error| match several {
                true => format!("{place}{error}"),
                false => error.to_string(),
            })?);
        }
        // Below the token layers: the wait for a token has a timeout of its own.
        let timed = out::with_timeout(client.clone(), config.answer_timeout);
        let streaming = match apps.as_slice() {
            [app] if !several => BoxCloneSyncService::new(app.layer.layer(timed)),
            apps => {
                let layers = apps.iter().map(|app| (app.slug.clone(), app.layer.clone()));
                let mut layer = OrganizationsLayer::new(layers.collect::<HashMap<_, _>>());
                if let Some(default) = &config.default_organization {
                    layer = layer.default_organization(default);
                }
                BoxCloneSyncService::new(layer.layer(timed))
            }
        };
        let bodiless = MapRequest::new(streaming.clone(), |request: Bodiless| {
            request.map(Body::new)
        });
        let replaying = RetryLayer::new(RetryUnauthorized::new()).layer(bodiless);
        let replaying = BoxCloneSyncService::new(replaying);
        Ok(Self {
            config,
            client,
            apps,
            streaming,
            replaying,
            exporter,
            failures: Failures::default(),
            shutting_down: AtomicBool::new(false),
        })
    }
}

impl App {
    fn new(
        slug: String,
        settings: Settings,
        rate_limit: Option<RateLimit>,
        share: Option<&Share>,
        client: &HttpClient,
    ) -> Result<Self, BoxError> {
        let credentials = settings.credentials()?;
        let to_body = |request: Request<Full<Bytes>>| request.map(Body::new);
        let client = MapRequest::new(client.clone(), to_body);
        let provider = HttpTokenProvider::with_service(credentials, client)?;
        let last_error = LastError::default();
        let shared = share.map(|share| share(provider.clone()));
        let mut builder = match shared.clone() {
            Some(shared) => settings.builder(Remembering(shared, Arc::clone(&last_error))),
            None => settings.builder(Remembering(provider, Arc::clone(&last_error))),
        };
        if let Some(rate_limit) = rate_limit {
            builder = builder.rate_limit(rate_limit);
        }
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

/// A provider that remembers its last error.
struct Remembering<P>(P, LastError);

impl<P: TokenProvider> TokenProvider for Remembering<P> {
    async fn fetch(&self, cx: FetchContext) -> Result<AccessToken, Error> {
        let result = self.0.fetch(cx).await;
        // A fetch refused during a backoff must not hide the error that caused the backoff.
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
