//! Builds the token layer that the configuration describes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::http::Uri;
use officernd_auth::organizations::OrganizationsLayer;
use officernd_auth::{BoxError, HttpTokenProvider, RateLimit, TokenCache};

use crate::config::{App, Apps, Config};
use crate::dashboard::{Dashboard, Identity};
use crate::recorded::Recorded;
use crate::store::{Provider, SharedStore};
use crate::tokens::Tokens;
use crate::upstream::Upstream;

pub(crate) struct Setup {
    pub(crate) tokens: Tokens,
    pub(crate) upstream: Upstream,
    pub(crate) dashboard: Arc<Dashboard>,
    pub(crate) identity: Identity,
    pub(crate) origin: Uri,
    /// What each organization's tokens are asked for.
    pub(crate) scopes: BTreeMap<String, Vec<String>>,
}

impl Setup {
    pub(crate) fn new(config: Config) -> Result<Self, BoxError> {
        let Config {
            options,
            settings,
            apps,
            upstream: origin,
            store,
        } = config;
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION"),
            upstream: origin.to_string().trim_end_matches('/').to_owned(),
        };
        let dashboard = Arc::new(Dashboard::new(identity.clone(), &settings));
        let scopes = match &apps {
            Apps::One { slug, app } => {
                BTreeMap::from([(slug.clone().unwrap_or_default(), app.scopes.clone())])
            }
            Apps::PerOrganization { apps, .. } => apps
                .iter()
                .map(|(slug, app)| (slug.clone(), app.scopes.clone()))
                .collect(),
        };
        // One window for all organizations, as for one.
        let (requests, per) = dashboard.rate_limit;
        let is_set = settings.rate_limit_requests.is_some() || settings.rate_limit_per.is_some();
        let rate_limit = is_set.then(|| RateLimit::new(requests, per));
        let mut tokens: BTreeMap<String, (TokenCache, Provider)> = BTreeMap::new();
        let mut layer = |slug: &str, app| -> Result<_, BoxError> {
            let provider = provider(app, store.as_ref())?;
            let recorded = Recorded::new(provider.clone(), slug, Arc::clone(&dashboard));
            let mut builder = settings.builder(recorded);
            if let Some(rate_limit) = &rate_limit {
                builder = builder.rate_limit(rate_limit.clone());
            }
            let layer = builder.build()?;
            tokens.insert(slug.to_owned(), (layer.cache().clone(), provider));
            Ok(layer)
        };
        let upstream = match apps {
            Apps::PerOrganization { apps, default } => {
                let mut layers = HashMap::new();
                for (slug, app) in apps {
                    let layer = layer(&slug, app)?;
                    layers.insert(slug, layer);
                }
                let mut layer = OrganizationsLayer::new(layers);
                if let Some(default) = default {
                    layer = layer.default_organization(default);
                }
                Upstream::new(&layer, options.body_timeout)?
            }
            Apps::One { slug, app } => {
                let layer = layer(&slug.unwrap_or_default(), app)?;
                Upstream::new(&layer, options.body_timeout)?
            }
        };
        let tokens = Tokens::new(tokens);
        Ok(Self {
            tokens,
            upstream,
            dashboard,
            identity,
            origin,
            scopes,
        })
    }
}

fn provider(app: App, store: Option<&SharedStore>) -> Result<Provider, BoxError> {
    let http = HttpTokenProvider::new(app.credentials)?;
    Ok(Provider::new(http, store))
}
