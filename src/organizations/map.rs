//! The layers by slug, made at the first request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, oneshot};

use super::resolver::Resolve;
use super::slug::{OrganizationSlug, of_path, rejected};
use crate::clock::{Clock, TokioClock};
use crate::{Error, ErrorKind, OfficeRndAuthLayer, TokenStatus, backoff};

/// How long the resolver is not asked again for an unknown organization.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// How long a request waits for the resolver. Its layer's `acquire_timeout` comes after that.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Config {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) default: Option<Result<OrganizationSlug, Error>>,
    pub(super) max: usize,
    pub(super) idle_after: Duration,
}

type Entries = HashMap<Arc<str>, Arc<Entry>>;

/// The organizations in use. Reads take no lock; each change replaces the map by a copy.
pub(super) struct Map {
    pub(super) config: Config,
    entries: ArcSwap<Entries>,
    /// Locked while the entries change. Closed once the task that drops idle ones has ended.
    dropper: Mutex<Option<oneshot::Sender<Infallible>>>,
}

#[derive(Default)]
struct Entry {
    layer: OnceCell<OfficeRndAuthLayer>,
    /// Why there is no layer, until when the resolver is not asked again, and how often it has
    /// failed.
    refused: Mutex<Option<(Error, Instant, u32)>>,
    /// Whether a request came since idle organizations were dropped last.
    used: AtomicBool,
}

impl Map {
    pub(super) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            config,
            entries: ArcSwap::default(),
            dropper: Mutex::new(None),
        })
    }

    /// Returns the organization that a request is about.
    #[inline]
    pub(super) fn slug<'a>(
        &'a self,
        chosen: Option<&'a OrganizationSlug>,
        path: &'a str,
    ) -> Result<&'a str, Error> {
        if let Some(chosen) = chosen {
            return Ok(chosen.as_str());
        }
        match (of_path(path)?, &self.config.default) {
            (Some(slug), _) => Ok(slug),
            (None, Some(Ok(default))) => Ok(default.as_str()),
            (None, Some(Err(error))) => {
                Err(rejected("the default_organization is not a slug").with_source(error.clone()))
            }
            (None, None) => Err(rejected(
                "the path names no organization (/api/v2/organizations/{slug}/...), and there is \
                 no default_organization",
            )),
        }
    }

    /// Gives the organization's layer to `act`, if it is known already.
    #[inline]
    pub(super) fn with<R>(
        &self,
        slug: &str,
        act: impl FnOnce(&OfficeRndAuthLayer) -> R,
    ) -> Option<R> {
        let entries = self.entries.load();
        let entry = entries.get(slug)?;
        let layer = entry.layer.get()?;
        entry.mark_used();
        Some(act(layer))
    }

    /// Returns the organization's layer; asks the resolver once if it is not known.
    ///
    /// Cancel safe: another caller that waits asks instead.
    pub(super) async fn find(self: Arc<Self>, slug: Arc<str>) -> Result<OfficeRndAuthLayer, Error> {
        check_runtime()?;
        let entry = self.enter(&slug);
        let layer = entry.layer.get_or_try_init(|| self.resolve(&slug, &entry));
        match tokio::time::timeout(RESOLVE_TIMEOUT, layer).await {
            Ok(layer) => layer.cloned(),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("organization {slug:?}: the resolver has not answered within 30 s"),
            )),
        }
    }

    async fn resolve(&self, slug: &str, entry: &Entry) -> Result<OfficeRndAuthLayer, Error> {
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
        let error = match self.config.resolver.resolve(slug).await {
            Ok(Some(layer)) => return Ok(layer),
            Ok(None) => rejected(&format!(
                "organization {slug:?}: the resolver knows no credentials for it"
            ))
            .with_retry_after(UNKNOWN_FOR),
            Err(error) => error,
        };
        let wait = backoff(&error, failures, fastrand::f32());
        let now = TokioClock.now();
        let until = now.checked_add(wait).unwrap_or(now);
        *entry.refused() = Some((error.clone(), until, failures));
        Err(error.with_retry_after(wait))
    }

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
        if dropper.as_ref().is_none_or(oneshot::Sender::is_closed) {
            let (sender, gone) = oneshot::channel();
            tokio::spawn(drop_idle(
                Arc::downgrade(self),
                gone,
                self.config.idle_after,
            ));
            *dropper = Some(sender);
        }
        entry
    }

    /// Makes room for one more.
    fn make_room(&self, entries: &mut Entries) {
        // A sixteenth at once, so that a flood of slugs costs each newcomer little. Those without
        // credentials go first.
        let mut surplus = match (entries.len() + 1).saturating_sub(self.config.max) {
            0 => return,
            over => over + self.config.max / 16,
        };
        for unknown_only in [true, false] {
            entries.retain(|_, entry| {
                let keep = surplus == 0 || (unknown_only && entry.layer.initialized());
                surplus -= usize::from(!keep);
                keep
            });
        }
    }

    /// Drops the organizations without a request since the last call. Returns whether any is left.
    fn drop_unused(&self) -> bool {
        let mut dropper = self.dropper();
        let mut entries = Entries::clone(&self.entries.load());
        entries.retain(|_, entry| entry.used.swap(false, Ordering::Relaxed));
        let any_left = !entries.is_empty();
        if !any_left {
            *dropper = None;
        }
        self.entries.store(Arc::new(entries));
        any_left
    }

    fn dropper(&self) -> MutexGuard<'_, Option<oneshot::Sender<Infallible>>> {
        self.dropper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn statuses(&self) -> Vec<(String, TokenStatus)> {
        let entries = self.entries.load();
        let known = entries.iter().filter_map(|(slug, entry)| {
            let layer = entry.layer.get()?;
            Some((slug.to_string(), layer.cache().status()))
        });
        known.collect()
    }
}

impl Entry {
    /// Writes once per `idle_after`, so that hits do not compete for the cache line.
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

/// Drops idle organizations until none is left, or the map is gone.
async fn drop_idle(map: Weak<Map>, mut gone: oneshot::Receiver<Infallible>, every: Duration) {
    while tokio::time::timeout(every, &mut gone).await.is_err() {
        if !map.upgrade().is_some_and(|map| map.drop_unused()) {
            return;
        }
    }
}

/// Checks that a timer can be started here: tokio panics where it cannot.
fn check_runtime() -> Result<(), Error> {
    let timer = || drop(tokio::time::sleep(Duration::ZERO));
    if Handle::try_current().is_ok() && catch_unwind(timer).is_ok() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Runtime,
        "an organization is looked up inside a tokio runtime with timers only",
    ))
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("organizations", &self.entries.load().len())
            .field("max", &self.config.max)
            .field("idle_after", &self.config.idle_after)
            .finish_non_exhaustive()
    }
}
