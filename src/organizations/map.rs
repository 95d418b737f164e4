//! The layers by slug, created at the first request.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::resolver::OrganizationResolver;
use super::slug::{OrganizationSlug, of_path, refusal};
use crate::clock::{Clock, TokioClock};
use crate::future::BoxFuture;
use crate::{Error, ErrorKind, OfficeRndAuthLayer, backoff};

/// How long an organization without credentials is remembered at first; the backoff doubles it, to 10 min.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// How long a request waits for the resolver, before the `acquire_timeout` of its layer begins.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The organizations in use, and the settings of their layer.
pub(super) struct Map {
    resolver: Arc<Resolver>,
    pub(super) default: Option<Result<OrganizationSlug, Error>>,
    pub(super) max: usize,
    pub(super) idle_after: Duration,
    /// Read without a lock; each change replaces the map by a copy.
    pub(super) entries: ArcSwap<Entries>,
    /// The task that drops idle entries. Locked while the entries change.
    dropper: Mutex<JoinSet<()>>,
}

type Entries = HashMap<Arc<str>, Arc<Entry>>;

type Resolver =
    dyn Fn(Arc<str>) -> BoxFuture<Result<Option<OfficeRndAuthLayer>, Error>> + Send + Sync;

#[derive(Default)]
pub(super) struct Entry {
    pub(super) layer: OnceCell<OfficeRndAuthLayer>,
    /// Why there is no layer, when the resolver may be called again, and how often it has failed.
    refused: Mutex<Option<(Error, Instant, u32)>>,
    /// Whether a request has come since idle organizations were last dropped.
    used: AtomicBool,
}

impl Map {
    pub(super) fn new(resolver: impl OrganizationResolver) -> Self {
        let resolver = Arc::new(resolver);
        Self {
            resolver: Arc::new(move |slug| {
                let resolver = Arc::clone(&resolver);
                Box::pin(async move { resolver.resolve(&slug).await })
            }),
            default: None,
            max: 1_000,
            idle_after: Duration::from_secs(60 * 60),
            entries: ArcSwap::default(),
            dropper: Mutex::default(),
        }
    }

    /// Creates a map with the same settings and without entries.
    pub(super) fn emptied(&self) -> Self {
        Self {
            resolver: Arc::clone(&self.resolver),
            default: self.default.clone(),
            entries: ArcSwap::default(),
            dropper: Mutex::default(),
            ..*self
        }
    }

    /// Returns the slug of a request with this extension and this path.
    #[inline]
    pub(super) fn slug<'a>(
        &'a self,
        chosen: Option<&'a OrganizationSlug>,
        path: &'a str,
    ) -> Result<&'a str, Error> {
        if let Some(chosen) = chosen {
            return Ok(chosen.as_str());
        }
        match (of_path(path)?, &self.default) {
            (Some(slug), _) => Ok(slug),
            (None, Some(Ok(default))) => Ok(default.as_str()),
            (None, Some(Err(error))) => {
                Err(refusal("the default_organization is not a slug").with_source(error.clone()))
            }
            (None, None) => Err(refusal(
                "the path has no organization; use /api/v2/organizations/{slug}/..., or set a \
                 default_organization",
            )),
        }
    }

    /// Returns the organization's layer. If it is unknown, one of the callers calls the resolver.
    ///
    /// Cancel safe: if that caller leaves, another one calls the resolver.
    pub(super) async fn find(self: Arc<Self>, slug: Arc<str>) -> Result<OfficeRndAuthLayer, Error> {
        if Handle::try_current().is_err() {
            let problem = "no tokio runtime to resolve an organization on; call inside a runtime";
            return Err(Error::new(ErrorKind::Runtime, problem));
        }
        let entry = self.enter(&slug);
        let layer = entry.layer.get_or_try_init(|| self.resolve(&slug, &entry));
        match tokio::time::timeout(RESOLVE_TIMEOUT, layer).await {
            Ok(layer) => layer.cloned(),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("organization {slug:?}: the resolver did not answer within 30 s"),
            )),
        }
    }

    async fn resolve(&self, slug: &Arc<str>, entry: &Entry) -> Result<OfficeRndAuthLayer, Error> {
        let failures = match &*entry.refused() {
            Some((error, until, failures)) => {
                let left = until.saturating_duration_since(TokioClock.now());
                if !left.is_zero() {
                    return Err(error.clone().with_retry_after(left));
                }
                failures.saturating_add(1)
            }
            None => 1,
        };
        let error = match (self.resolver)(Arc::clone(slug)).await {
            Ok(Some(layer)) => return Ok(layer),
            Ok(None) => {
                let problem = format!("organization {slug:?} has no credentials in the resolver");
                refusal(&problem).with_retry_after(UNKNOWN_FOR)
            }
            Err(error) => error,
        };
        let wait = backoff(&error, failures, fastrand::f32());
        let now = TokioClock.now();
        let until = now.checked_add(wait).unwrap_or(now);
        *entry.refused() = Some((error.clone(), until, failures));
        Err(error.with_retry_after(wait))
    }

    /// Returns the organization's entry, which is added if there is none.
    fn enter(self: &Arc<Self>, slug: &Arc<str>) -> Arc<Entry> {
        let mut dropper = self.dropper();
        let entries = self.entries.load_full();
        if let Some(entry) = entries.get(slug) {
            entry.mark_used();
            return Arc::clone(entry);
        }
        let mut entries = Entries::clone(&entries);
        self.make_room(&mut entries);
        let entry = Arc::<Entry>::default();
        entry.mark_used();
        entries.insert(Arc::clone(slug), Arc::clone(&entry));
        self.entries.store(Arc::new(entries));
        // The task has ended if its runtime was dropped.
        while dropper.try_join_next().is_some() {}
        if dropper.is_empty() {
            dropper.spawn(drop_idle(Arc::downgrade(self), self.idle_after));
        }
        entry
    }

    /// Makes room for one more entry. Those without credentials are dropped first.
    fn make_room(&self, entries: &mut Entries) {
        // Drops a sixteenth at once, so that a flood of slugs does not scan the map each time.
        let mut surplus = match (entries.len() + 1).saturating_sub(self.max) {
            0 => return,
            over => over + self.max / 16,
        };
        for unknown_only in [true, false] {
            entries.retain(|_, entry| {
                let keep = surplus == 0 || (unknown_only && entry.layer.initialized());
                surplus -= usize::from(!keep);
                keep
            });
        }
    }

    /// Drops the organizations without a request since the last call. Returns `true` if any is left.
    fn drop_unused(&self) -> bool {
        let mut dropper = self.dropper();
        let mut entries = Entries::clone(&self.entries.load());
        entries.retain(|_, entry| entry.used.swap(false, Ordering::Relaxed));
        let any_left = !entries.is_empty();
        self.entries.store(Arc::new(entries));
        if !any_left {
            // The next organization starts a new task, even if this one has not ended yet.
            dropper.detach_all();
        }
        any_left
    }

    fn dropper(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.dropper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Returns the layer, if it is known, and marks it as used.
    #[inline]
    pub(super) fn layer(&self) -> Option<&OfficeRndAuthLayer> {
        let layer = self.layer.get()?;
        self.mark_used();
        Some(layer)
    }

    /// Writes only once per `idle_after`: a write on each hit would contend for the cache line.
    #[inline]
    fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<(Error, Instant, u32)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops idle organizations until none is left, or the map itself is dropped.
async fn drop_idle(map: Weak<Map>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !map.upgrade().is_some_and(|map| map.drop_unused()) {
            return;
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("organizations", &self.entries.load().len())
            .field("max", &self.max)
            .field("idle_after", &self.idle_after)
            .finish_non_exhaustive()
    }
}
