//! The caches by slug, made at the first request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use papaya::{HashMap, LocalGuard};
use tokio::sync::OnceCell;

use crate::allowance::Allowance;
use crate::cache::{Backoff, Settings, TokenCache, TokenStatus};
use crate::clock::{Clock, Now, later, timeout_at};
use crate::error::{Error, ErrorKind};
use crate::provider::DynProvider;

/// How long an unknown organization is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

pub(crate) type Resolved = Result<Option<Box<dyn DynProvider>>, Error>;

/// Finds the provider of an organization, without its type.
pub(crate) trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, slug: &'a str) -> Pin<Box<dyn Future<Output = Resolved> + Send + 'a>>;
}

/// How many organizations are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) most: usize,
    pub(crate) idle_after: Duration,
}

/// The caches by slug. Reads take no lock; the number is bounded; idle caches
/// are evicted.
pub(crate) struct OrganizationMap {
    resolver: Box<dyn Resolve>,
    settings: Settings,
    /// For providers that name none: one for all organizations.
    allowance: Option<Allowance>,
    bounds: Bounds,
    organizations: HashMap<Box<str>, Arc<Organization>, RandomState>,
    next_eviction: Mutex<Option<Instant>>,
}

/// The map while it is read: what it lends outlives the slug.
pub(crate) struct PinnedMap<'a>(
    papaya::HashMapRef<'a, Box<str>, Arc<Organization>, RandomState, LocalGuard<'a>>,
);

impl PinnedMap<'_> {
    /// The cache of this organization, if there is one already.
    #[inline]
    pub(crate) fn get(&self, slug: &str) -> Option<&TokenCache> {
        let organization = self.0.get(slug)?;
        let cache = organization.cache.get()?;
        organization.mark_used();
        Some(cache)
    }
}

#[derive(Default)]
struct Organization {
    cache: OnceCell<TokenCache>,
    /// Why there is no cache, and until when nobody asks again.
    backoff: Mutex<Option<(Backoff, u32)>>,
    /// Whether anybody asked since the last eviction. Written once per eviction, so
    /// that hits do not fight over it.
    used: AtomicBool,
}

impl OrganizationMap {
    pub(crate) fn new(
        resolver: Box<dyn Resolve>,
        settings: Settings,
        allowance: Option<Allowance>,
        bounds: Bounds,
    ) -> Self {
        Self {
            resolver,
            settings,
            allowance,
            bounds,
            organizations: HashMap::builder()
                .resize_mode(papaya::ResizeMode::Blocking)
                .hasher(RandomState::default())
                .build(),
            next_eviction: Mutex::new(None),
        }
    }

    /// The caches, for as long as one request looks for its own.
    #[inline]
    pub(crate) fn pin(&self) -> PinnedMap<'_> {
        PinnedMap(self.organizations.pin())
    }

    /// The cache of this organization; asks the resolver once if there is none.
    ///
    /// Cancel safe: another caller who waits asks in one's stead.
    pub(crate) async fn find(&self, slug: &str) -> Result<TokenCache, Error> {
        let clock = &*self.settings.clock;
        let deadline = later(clock.now(), self.settings.acquire_timeout);
        let organization = self.enter(slug);
        let cache = organization
            .cache
            .get_or_try_init(|| self.resolve(slug, &organization));
        match timeout_at(clock, deadline, cache).await {
            Some(cache) => cache.cloned(),
            None => Err(Error::new(
                ErrorKind::Timeout,
                "the organization's credentials were not found within the acquire timeout",
            )),
        }
    }

    async fn resolve(&self, slug: &str, organization: &Organization) -> Result<TokenCache, Error> {
        let earlier = {
            let now = Now::read(self.clock());
            let backoff = organization.backoff();
            match &*backoff {
                Some((backoff, _)) if !backoff.is_over(now) => return Err(backoff.error(now)),
                Some((_, failures)) => *failures,
                None => 0,
            }
        };
        let error = match self.resolver.resolve(slug).await {
            Ok(Some(provider)) => {
                let allowance = self
                    .allowance
                    .clone()
                    .filter(|_| provider.allowance().is_none());
                return Ok(TokenCache::with_settings(
                    provider,
                    allowance,
                    self.settings.clone(),
                ));
            }
            Ok(None) => Error::new(
                ErrorKind::Organization,
                "the resolver knows no credentials for this organization",
            )
            .with_retry_after(UNKNOWN_FOR),
            Err(error) => error,
        };
        let now = Now::read(self.clock());
        let backoff = Backoff::after_try(error, earlier, now, fastrand::f32());
        let error = backoff.error(now);
        *organization.backoff() = Some((backoff, earlier.saturating_add(1)));
        Err(error)
    }

    fn enter(&self, slug: &str) -> Arc<Organization> {
        self.evict_idle();
        let organizations = self.organizations.pin();
        let organization = organizations.get_or_insert_with(slug.into(), Arc::default);
        organization.mark_used();
        Arc::clone(organization)
    }

    /// Lets go of organizations that nobody asked for since the last eviction;
    /// at the bound, of some more. Called on the way to a resolver or a token,
    /// never on a hit.
    fn evict_idle(&self) {
        let now = self.settings.clock.now();
        let mut next = self
            .next_eviction
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let full = self.organizations.len() >= self.bounds.most;
        let due = next.is_none_or(|next| now >= next);
        if due {
            *next = Some(later(now, self.bounds.idle_after));
        }
        if !due && !full {
            return;
        }
        let organizations = self.organizations.pin();
        if due {
            organizations
                .retain(|_, organization| organization.used.swap(false, Ordering::Relaxed));
        }
        // A sixteenth at once, so that a flood of slugs costs each newcomer
        // little. Those without credentials go first.
        let mut surplus = match organizations.len().checked_sub(self.bounds.most) {
            Some(over) => over + self.bounds.most / 16 + 1,
            None => return,
        };
        for unknown_only in [true, false] {
            organizations.retain(|_, organization| {
                let keep = surplus == 0 || (unknown_only && organization.cache.initialized());
                surplus -= usize::from(!keep);
                keep
            });
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    pub(crate) fn len(&self) -> usize {
        self.organizations.len()
    }

    pub(crate) fn statuses(&self) -> Vec<(String, TokenStatus)> {
        let organizations = self.organizations.pin();
        let known = organizations.iter().filter_map(|(slug, organization)| {
            let cache = organization.cache.get()?;
            Some((slug.to_string(), cache.status()))
        });
        known.collect()
    }
}

impl Organization {
    #[inline]
    fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn backoff(&self) -> std::sync::MutexGuard<'_, Option<(Backoff, u32)>> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OrganizationMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrganizationMap")
            .field("organizations", &self.len())
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
