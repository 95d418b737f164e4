//! The tokens that the gateway hands out: one cache, or one per organization.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use officernd_auth::organizations::Organizations;
use officernd_auth::{Error, TokenCache, TokenStatus};

use crate::store::Provider;

/// How often each organization's cache is asked for its token, which keeps its
/// refresh timer running while no request comes.
const KEEP_WARM_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Tokens {
    source: Source,
    providers: Arc<BTreeMap<String, Provider>>,
}

#[derive(Clone)]
enum Source {
    One(TokenCache),
    PerOrganization(Organizations),
}

/// One organization's token, as `/readyz`, `/metrics` and the page show it.
pub(crate) struct OrganizationState {
    /// Empty if there is one app and its organization is not configured.
    pub(crate) slug: String,
    /// `None` before the organization's first request.
    pub(crate) status: Option<TokenStatus>,
    pub(crate) store_problem: Option<String>,
}

impl OrganizationState {
    pub(crate) fn has_token(&self) -> bool {
        self.status.as_ref().is_some_and(TokenStatus::has_token)
    }
}

impl Tokens {
    pub(crate) fn one(slug: String, cache: TokenCache, provider: Provider) -> Self {
        Self {
            source: Source::One(cache),
            providers: Arc::new(BTreeMap::from([(slug, provider)])),
        }
    }

    pub(crate) fn per_organization(
        organizations: Organizations,
        providers: BTreeMap<String, Provider>,
    ) -> Self {
        Self {
            source: Source::PerOrganization(organizations),
            providers: Arc::new(providers),
        }
    }

    /// Every configured organization, by slug.
    pub(crate) fn states(&self) -> Vec<OrganizationState> {
        let mut statuses: BTreeMap<String, TokenStatus> = match &self.source {
            Source::One(cache) => {
                let slug = self.providers.keys().next().cloned();
                BTreeMap::from([(slug.unwrap_or_default(), cache.status())])
            }
            Source::PerOrganization(organizations) => {
                organizations.statuses().into_iter().collect()
            }
        };
        let states = self.providers.iter().map(|(slug, provider)| {
            let status = statuses.remove(slug);
            OrganizationState {
                slug: slug.clone(),
                status,
                store_problem: provider.store_problem(),
            }
        });
        states.collect()
    }

    /// The cache of a configured organization.
    pub(crate) async fn cache(&self, slug: &str) -> Result<TokenCache, Error> {
        match &self.source {
            Source::One(cache) => Ok(cache.clone()),
            Source::PerOrganization(organizations) => organizations.cache(slug).await,
        }
    }

    /// Completes when a token changes, where that can be watched.
    pub(crate) async fn changed(&self) {
        match &self.source {
            Source::One(cache) => {
                // The cache lives as long as `self`: its sender is not gone.
                let _ = cache.subscribe().changed().await;
            }
            Source::PerOrganization(_) => std::future::pending().await,
        }
    }

    /// Fetches the first tokens and keeps every organization in use.
    pub(crate) async fn keep_warm(self) {
        let mut interval = tokio::time::interval(KEEP_WARM_INTERVAL);
        loop {
            interval.tick().await;
            match &self.source {
                // The cache's own timer does the rest.
                Source::One(cache) => return drop(cache.warm_up().await),
                Source::PerOrganization(organizations) => {
                    for slug in self.providers.keys() {
                        let Ok(cache) = organizations.cache(slug).await else {
                            continue;
                        };
                        if cache.try_token().is_none() {
                            // Not awaited: one organization must not hold up the next.
                            tokio::spawn(async move {
                                let warm_up = cache.warm_up();
                                tokio::time::timeout(KEEP_WARM_INTERVAL, warm_up).await
                            });
                        }
                    }
                }
            }
        }
    }
}
