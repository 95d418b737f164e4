//! The caches by slug, made at the first request.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use papaya::{HashMap, LocalGuard};

use super::entry::{Entry, Known};
use super::organization::Organization;
use super::resolver::Resolve;
use crate::backoff::backoff;
use crate::cache::{self, TokenCache, TokenStatus};
use crate::clock::{Clock, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::provider::{DynProvider, FetchContext, TokenProvider};
use crate::rate_limit::RateLimit;
use crate::settings::Settings;
use crate::token::AccessToken;

/// How long the resolver is not asked again for an unknown organization.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// The caches by slug. Reads take no lock; the number is bounded; idle caches
/// are dropped.
pub(crate) struct OrganizationMap {
    resolver: Box<dyn Resolve>,
    settings: cache::Settings,
    /// As the user gave it: wins over the providers'.
    rate_limit: Option<RateLimit>,
    /// For providers that name none: one for all organizations.
    shared: RateLimit,
    max: usize,
    idle_after: Duration,
    entries: HashMap<Box<str>, Arc<Entry>, RandomState>,
    next_eviction: Mutex<Option<Instant>>,
    this: Weak<Self>,
}

/// The map while it is read: what it lends outlives the slug.
pub(crate) struct PinnedMap<'a>(
    papaya::HashMapRef<'a, Box<str>, Arc<Entry>, RandomState, LocalGuard<'a>>,
);

/// An organization's provider. Each fetch also drops idle organizations: it
/// happens once in a token's life, and on no request's way.
struct EvictingProvider {
    provider: Arc<dyn DynProvider>,
    map: Weak<OrganizationMap>,
}

impl PinnedMap<'_> {
    /// This organization, if it is known already.
    #[inline]
    pub(crate) fn get(&self, slug: &str) -> Option<&Known> {
        let entry = self.0.get(slug)?;
        let known = entry.known.get()?;
        entry.mark_used();
        Some(known)
    }
}

impl OrganizationMap {
    pub(crate) fn new(
        resolver: Box<dyn Resolve>,
        cache_settings: cache::Settings,
        rate_limit: Option<RateLimit>,
        settings: &Settings,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            resolver,
            settings: cache_settings,
            rate_limit,
            shared: RateLimit::default(),
            max: settings.max_organizations,
            idle_after: settings.idle_after,
            entries: HashMap::builder()
                .resize_mode(papaya::ResizeMode::Blocking)
                .hasher(RandomState::default())
                .build(),
            next_eviction: Mutex::new(None),
            this: Weak::clone(this),
        })
    }

    /// The caches, for as long as one request looks for its own.
    #[inline]
    pub(crate) fn pin(&self) -> PinnedMap<'_> {
        PinnedMap(self.entries.pin())
    }

    /// This organization; asks the resolver once if it is not known.
    ///
    /// Cancel safe: another caller that waits asks instead.
    pub(crate) async fn find(&self, slug: &str, deadline: Instant) -> Result<Known, Error> {
        let entry = self.enter(slug);
        let known = entry.known.get_or_try_init(|| self.resolve(slug, &entry));
        match timeout_at(self.clock(), deadline, known).await {
            Some(known) => known.cloned(),
            None => Err(Error::new(
                ErrorKind::Timeout,
                "the organization's credentials were not found within the acquire timeout",
            )),
        }
    }

    async fn resolve(&self, slug: &str, entry: &Entry) -> Result<Known, Error> {
        let failures = match &*entry.refused() {
            Some((error, until, failures)) => {
                let left = until.saturating_duration_since(self.clock().now());
                if !left.is_zero() {
                    return Err(error.clone().with_retry_after(left));
                }
                failures.saturating_add(1)
            }
            None => 1,
        };
        let error = match self.resolver.resolve(slug).await {
            Ok(Some(organization)) => return Ok(self.known(organization)),
            Ok(None) => Error::new(
                ErrorKind::Organization,
                "the resolver knows no credentials for this organization",
            )
            .with_retry_after(UNKNOWN_FOR),
            Err(error) => error,
        };
        let wait = backoff(&error, failures, fastrand::f32());
        let until = later(self.clock().now(), wait);
        *entry.refused() = Some((error.clone(), until, failures));
        Err(error.with_retry_after(wait))
    }

    fn known(&self, organization: Organization) -> Known {
        let Organization {
            provider,
            rate_limit,
            origins,
        } = organization;
        let explicit = rate_limit.or_else(|| self.rate_limit.clone());
        // `None` is the provider's own.
        let or_shared = || {
            let has_own = provider.rate_limit().is_some();
            (!has_own).then(|| self.shared.clone())
        };
        let rate_limit = explicit.or_else(or_shared);
        let provider = EvictingProvider {
            provider,
            map: Weak::clone(&self.this),
        };
        let settings = self.settings.clone();
        let cache = TokenCache::with_settings(Box::new(provider), rate_limit, settings);
        Known { cache, origins }
    }

    fn enter(&self, slug: &str) -> Arc<Entry> {
        self.evict_idle(1);
        let entries = self.entries.pin();
        let entry = entries.get_or_insert_with(slug.into(), Arc::default);
        entry.mark_used();
        Arc::clone(entry)
    }

    /// Drops organizations without a request since the last eviction; above the
    /// bound, some more. Called on the way to a resolver, which adds one, or to
    /// a token, never on a hit.
    fn evict_idle(&self, newcomers: usize) {
        let now = self.clock().now();
        let mut next = self
            .next_eviction
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.pin();
        if next.is_none_or(|next| now >= next) {
            *next = Some(later(now, self.idle_after));
            entries.retain(|_, entry| entry.take_used());
        }
        // A sixteenth at once, so that a flood of slugs costs each newcomer
        // little. Those without credentials go first.
        let mut surplus = match (entries.len() + newcomers).saturating_sub(self.max) {
            0 => return,
            over => over + self.max / 16,
        };
        for unknown_only in [true, false] {
            entries.retain(|_, entry| {
                let keep = surplus == 0 || (unknown_only && entry.known.initialized());
                surplus -= usize::from(!keep);
                keep
            });
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    /// Until when a request that comes now waits, for resolver and token.
    pub(crate) fn deadline(&self) -> Instant {
        later(self.clock().now(), self.settings.policy.acquire_timeout)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn statuses(&self) -> Vec<(String, TokenStatus)> {
        let entries = self.entries.pin();
        let known = entries.iter().filter_map(|(slug, entry)| {
            let known = entry.known.get()?;
            Some((slug.to_string(), known.cache.status()))
        });
        known.collect()
    }
}

impl TokenProvider for EvictingProvider {
    fn fetch(&self, cx: FetchContext) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        if let Some(map) = self.map.upgrade() {
            map.evict_idle(0);
        }
        self.provider.fetch(cx)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.provider.rate_limit()
    }
}

impl fmt::Debug for OrganizationMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrganizationMap")
            .field("organizations", &self.len())
            .field("max", &self.max)
            .field("idle_after", &self.idle_after)
            .finish_non_exhaustive()
    }
}
