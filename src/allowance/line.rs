//! The line of caches that want a token request: who goes first. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::closures::Client;
use super::{Standing, Urgency};
use crate::clock::later;

/// At most so many caches keep a place; one more is refused without a place.
pub(super) const MAX_PLACES: usize = 65_536;

/// An absent cache keeps its place for at least this many windows after the
/// time that it was promised.
const KEPT_WINDOWS: u32 = 10;

/// In the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Requests wait for the token.
    Caller,
    /// The old token still serves.
    Refresh,
    /// The last fetch failed for a lasting reason.
    Failing,
}

/// The order of the line: by class; refreshes by expiry, earliest first; then
/// first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) class: Class,
    /// Only for refreshes. Without a token there is none: that goes first.
    expires_at: Option<Instant>,
    number: u64,
}

impl Rank {
    fn new(standing: Standing, urgency: Urgency, number: u64) -> Self {
        let class = match urgency {
            _ if standing.failing => Class::Failing,
            Urgency::Waiting => Class::Caller,
            Urgency::Background => Class::Refresh,
        };
        Self {
            class,
            expires_at: standing.expires_at.filter(|_| class == Class::Refresh),
            number,
        }
    }

    fn first_of(class: Class) -> Self {
        Self {
            class,
            expires_at: None,
            number: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) rank: Rank,
    pub(super) client: Client,
    asked_at: Instant,
    /// When its turn is expected, if the window is not closed to it.
    expected_at: Option<Instant>,
    /// When it was promised a request. Only while it is absent.
    promise: Option<Instant>,
    kept_until: Option<Instant>,
}

/// A cache keeps its place while it waits ("present") and after it was sent away to
/// come back later ("absent").
#[derive(Debug, Default)]
pub(super) struct Line {
    places: HashMap<u64, Place>,
    ranks: BTreeMap<Rank, u64>,
    present: BTreeMap<Rank, u64>,
    promises: BTreeSet<(Instant, u64)>,
    next_number: u64,
    next_cleanup: Option<Instant>,
}

impl Line {
    /// Takes a place, or comes back to it. `None` if the line is full.
    pub(super) fn enter(
        &mut self,
        applicant: u64,
        client: &Client,
        standing: Standing,
        urgency: Urgency,
        now: Instant,
    ) -> Option<Rank> {
        let known = self.leave(applicant);
        if known.is_none() && self.places.len() >= MAX_PLACES {
            return None;
        }
        let (asked_at, number) = match known {
            Some(place) => (place.asked_at, place.rank.number),
            None => {
                self.next_number += 1;
                (now, self.next_number)
            }
        };
        let rank = Rank::new(standing, urgency, number);
        let place = Place {
            rank,
            client: client.clone(),
            asked_at,
            expected_at: None,
            promise: None,
            kept_until: None,
        };
        self.places.insert(applicant, place);
        self.ranks.insert(rank, applicant);
        self.present.insert(rank, applicant);
        Some(rank)
    }

    pub(super) fn leave(&mut self, applicant: u64) -> Option<Place> {
        let place = self.places.remove(&applicant)?;
        self.ranks.remove(&place.rank);
        self.present.remove(&place.rank);
        if let Some(promise) = place.promise {
            self.promises.remove(&(promise, applicant));
        }
        Some(place)
    }

    /// The cache stops waiting and may come back: at the promised time, or without
    /// a promise at any time. One that is absent already stays as it is.
    pub(super) fn absent(
        &mut self,
        applicant: u64,
        promise: Option<Instant>,
        now: Instant,
        window: Duration,
    ) {
        let present = |place: &&mut Place| place.kept_until.is_none();
        let Some(place) = self.places.get_mut(&applicant).filter(present) else {
            return;
        };
        let from = promise.unwrap_or(now);
        let waited = from.saturating_duration_since(place.asked_at);
        let kept = waited.max(window.saturating_mul(KEPT_WINDOWS));
        place.kept_until = Some(later(from, kept));
        place.promise = promise;
        self.present.remove(&place.rank);
        if let Some(promise) = promise {
            self.promises.insert((promise, applicant));
        }
    }

    /// How many places are before this one. Counts from the nearer end where
    /// that is near: new callers are last, those who come back are first.
    pub(super) fn position(&self, rank: Rank) -> usize {
        let behind = (Bound::Excluded(rank), Bound::Unbounded);
        let mut behind = self.ranks.range(behind).fuse();
        let mut before = self.ranks.range(..rank).fuse();
        let mut steps = 0;
        loop {
            if before.next().is_none() {
                return steps;
            }
            if behind.next().is_none() {
                return self.ranks.len().saturating_sub(steps + 1);
            }
            steps += 1;
        }
    }

    pub(super) fn expect(&mut self, applicant: u64, at: Instant) {
        if let Some(place) = self.places.get_mut(&applicant) {
            place.expected_at = Some(at);
        }
    }

    /// When the turn of the place so many before this rank is expected.
    pub(super) fn expected_before(&self, rank: Rank, places: usize) -> Option<Instant> {
        let nth = places.checked_sub(1)?;
        let (_, applicant) = self.ranks.range(..rank).rev().nth(nth)?;
        self.places.get(applicant)?.expected_at
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many places of the class are before this rank.
    pub(super) fn position_in_class(&self, rank: Rank) -> usize {
        self.ranks.range(Rank::first_of(rank.class)..rank).count()
    }

    pub(super) fn present(&self) -> impl Iterator<Item = u64> {
        self.present.values().copied()
    }

    pub(super) fn present_before(&self, rank: Rank) -> impl Iterator<Item = &Place> {
        let before = self.present.range(..rank);
        before.filter_map(|(_, applicant)| self.places.get(applicant))
    }

    /// The places with a promise between the two instants, earliest first.
    pub(super) fn promised(
        &self,
        from: Instant,
        until: Instant,
    ) -> impl Iterator<Item = (Instant, &Place)> {
        let between = self.promises.range((from, 0)..(until, 0));
        between.filter_map(|&(promise, id)| self.places.get(&id).map(|place| (promise, place)))
    }

    pub(super) fn promise_of(&self, applicant: u64) -> Option<Instant> {
        self.places.get(&applicant)?.promise
    }

    /// Drops the places of caches that did not come back. Looks every ten
    /// windows, which is the least that a place is kept.
    pub(super) fn forget(&mut self, now: Instant, window: Duration) {
        if self.next_cleanup.is_some_and(|at| now < at) {
            return;
        }
        let interval = window.max(Duration::from_secs(1));
        self.next_cleanup = Some(later(now, interval.saturating_mul(KEPT_WINDOWS)));
        self.drop_absent_if(|kept_until| kept_until <= now);
    }

    /// The clock went back: it is another one, and no promise of the last one
    /// means anything.
    pub(super) fn forget_promises(&mut self) {
        self.next_cleanup = None;
        self.drop_absent_if(|_| true);
    }

    fn drop_absent_if(&mut self, over: impl Fn(Instant) -> bool) {
        let gone = |place: &Place| place.kept_until.is_some_and(&over);
        let gone = self.places.iter().filter(|(_, place)| gone(place));
        let gone: Vec<u64> = gone.map(|(&applicant, _)| applicant).collect();
        for applicant in gone {
            self.leave(applicant);
        }
    }
}
