//! The tokens that the gateway hands out: one cache for each organization.

use std::collections::BTreeMap;
use std::sync::Arc;

use officernd_auth::{TokenCache, TokenStatus};

use crate::store::Provider;

#[derive(Clone)]
pub(crate) struct Tokens {
    organizations: Arc<BTreeMap<String, (TokenCache, Provider)>>,
}

/// One organization's token, as `/readyz`, `/metrics` and the page show it.
pub(crate) struct OrganizationState {
    /// Empty if there is one app and its organization is not configured.
    pub(crate) slug: String,
    pub(crate) status: TokenStatus,
    pub(crate) store_problem: Option<String>,
}

impl OrganizationState {
    pub(crate) fn has_token(&self) -> bool {
        self.status.has_token()
    }
}

impl Tokens {
    pub(crate) fn new(organizations: BTreeMap<String, (TokenCache, Provider)>) -> Self {
        let organizations = Arc::new(organizations);
        Self { organizations }
    }

    /// Every configured organization, by slug.
    pub(crate) fn states(&self) -> Vec<OrganizationState> {
        let states = self.organizations.iter();
        let states = states.map(|(slug, (cache, provider))| OrganizationState {
            slug: slug.clone(),
            status: cache.status(),
            store_problem: provider.store_problem(),
        });
        states.collect()
    }

    /// The cache of a configured organization.
    pub(crate) fn cache(&self, slug: &str) -> Option<&TokenCache> {
        self.organizations.get(slug).map(|(cache, _)| cache)
    }

    /// Completes when the token changes, where there is one.
    pub(crate) async fn changed(&self) {
        let mut caches = self.organizations.values();
        match (caches.next(), caches.next()) {
            (Some((cache, _)), None) => {
                // The cache lives as long as `self`: its sender is not gone.
                let _ = cache.subscribe().changed().await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Fetches the first tokens. The caches' own timers do the rest.
    pub(crate) async fn warm_up(self) {
        let mut all = tokio::task::JoinSet::new();
        for (cache, _) in self.organizations.values() {
            let cache = cache.clone();
            all.spawn(async move { cache.warm_up().await });
        }
        while all.join_next().await.is_some() {}
    }
}
