//! Builds the token layer that the configuration describes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use officernd_auth::organizations::Organizations;
use officernd_auth::{BoxError, HttpTokenProvider, OfficeRndAuthLayer, Settings};

use crate::config::{App, Apps, Config};
use crate::dashboard::{Dashboard, Identity};
use crate::recorded::Recorded;
use crate::store::{Provider, SharedStore};
use crate::tokens::Tokens;
use crate::upstream::Upstream;

/// No configured organization is dropped for being idle.
const IDLE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Places for slugs that are not configured, which callers may send.
const MAX_UNKNOWN: usize = 256;

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
        let (tokens, upstream) = match apps {
            Apps::PerOrganization { apps, default } => {
                let (layer, tokens) =
                    per_organization(&settings, apps, default, store.as_ref(), &dashboard)?;
                (tokens, Upstream::new(&layer, options.body_timeout)?)
            }
            Apps::One { slug, app } => {
                let slug = slug.unwrap_or_default();
                let provider = provider(app, store.as_ref())?;
                let recorded = Recorded::new(provider.clone(), &slug, Arc::clone(&dashboard));
                let layer = settings.builder(recorded).build()?;
                let tokens = Tokens::one(slug, layer.cache().clone(), provider);
                (tokens, Upstream::new(&layer, options.body_timeout)?)
            }
        };
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

fn per_organization(
    settings: &Settings,
    apps: BTreeMap<String, App>,
    default: Option<String>,
    store: Option<&SharedStore>,
    dashboard: &Arc<Dashboard>,
) -> Result<(OfficeRndAuthLayer<Organizations>, Tokens), BoxError> {
    let max = apps.len();
    let mut providers = BTreeMap::new();
    let mut recorded = BTreeMap::new();
    for (slug, app) in apps {
        let provider = provider(app, store)?;
        let record = Recorded::new(provider.clone(), &slug, Arc::clone(dashboard));
        recorded.insert(slug.clone(), record);
        providers.insert(slug, provider);
    }
    let mut builder = settings
        .per_organization(recorded)
        // Unknown slugs have places of their own.
        .max_organizations(max.saturating_mul(2).saturating_add(MAX_UNKNOWN))
        .idle_after(IDLE_AFTER);
    if let Some(default) = default {
        builder = builder.default_organization(default);
    }
    let layer = builder.build()?;
    let tokens = Tokens::per_organization(layer.organizations().clone(), providers);
    Ok((layer, tokens))
}
