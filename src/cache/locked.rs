//! What a cache's lock guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Count, Ordering};

use tokio::sync::watch;

use super::lifecycle::Lifecycle;
use super::status::TokenStatus;
use crate::clock::Now;
use crate::rate_limit::Urgency;

pub(super) struct Locked {
    pub(super) lifecycle: Lifecycle,
    pub(super) running: Running,
    /// Made for the first that follows it.
    status: Option<watch::Sender<TokenStatus>>,
    sent: Arc<Count>,
}

/// What belongs to the fetch in flight, and ends with it. Empty while there is
/// none, as nearly always.
#[derive(Default)]
pub(super) struct Running {
    /// The fetch, and its urgency, which it follows while it waits in line.
    fetch: Option<(u64, watch::Sender<Urgency>)>,
}

impl Locked {
    pub(super) fn new(lifecycle: Lifecycle, sent: &Arc<Count>) -> Self {
        Self {
            lifecycle,
            running: Running::default(),
            status: None,
            sent: Arc::clone(sent),
        }
    }

    pub(super) fn status(&self, now: Now) -> TokenStatus {
        let sent = self.sent.load(Ordering::Relaxed);
        self.lifecycle.status(sent, now)
    }

    pub(super) fn subscribe(&mut self, now: Now) -> watch::Receiver<TokenStatus> {
        let first = self.status(now);
        let followed = self.status.get_or_insert_with(|| watch::Sender::new(first));
        followed.subscribe()
    }

    pub(super) fn publish_status(&self, now: Now) {
        if let Some(followed) = &self.status {
            followed.send_replace(self.status(now));
        }
    }
}

impl Running {
    /// Follows the fetch in flight.
    pub(super) fn update(&mut self, current: Option<(u64, Urgency)>) {
        let old = self.fetch.as_ref().map(|(id, _)| *id);
        if old != current.map(|(id, _)| id) {
            let sender = |(id, urgency)| (id, watch::Sender::new(urgency));
            self.fetch = current.map(sender);
        }
        if let (Some((_, sender)), Some((_, urgency))) = (&self.fetch, current) {
            sender.send_if_modified(|sent| std::mem::replace(sent, urgency) != urgency);
        }
    }

    /// The urgency of this fetch, to be followed.
    pub(super) fn urgency_of(&self, id: u64) -> watch::Receiver<Urgency> {
        match &self.fetch {
            Some((running, sender)) if *running == id => sender.subscribe(),
            _ => watch::Sender::new(Urgency::Background).subscribe(),
        }
    }
}
