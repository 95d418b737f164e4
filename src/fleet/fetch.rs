//! One fetch: claim; then use the entry, fetch, or wait; and again.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::backoff::Pause;
use super::breaker::{OPEN_FOR, Source, StoreUnavailable};
use super::grant;
use super::key::KeyedProvider;
use super::late;
use super::reader::EntryReader;
use super::reservation::Reservation;
use super::session::Session;
use super::store::{Claim, Claimed, Limits, Name, StoredEntry};
use super::{Inner, LEASE_MARGIN};
use crate::allowance::{OFFICERND, Urgency};
use crate::clock::later;
use crate::error::{Error, ErrorKind};
use crate::provider::{Cause, FetchContext};
use crate::token::AccessToken;

/// A fetch in the background leaves a free place to waiting requests for this
/// long, in whatever process they are.
const BACKGROUND_DELAY: Duration = Duration::from_secs(1);

/// A fetch claims again after this at the latest: a place may become free early.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// One fetch.
pub(super) struct SharedFetch<P> {
    session: Session<P>,
    claim: Claim,
    reader: EntryReader,
}

impl<P: KeyedProvider> SharedFetch<P> {
    pub(super) async fn new(inner: &Arc<Inner<P>>, cx: FetchContext) -> Result<Self, Error> {
        let session = Session::new(inner, cx).await?;
        let cx = &session.cx;
        let (requests, per) = match cx.applicant.allowance().limit() {
            // What the inner provider sends is counted where it is sent.
            Some((_, per)) if inner.provider.spends_allowance() => (None, per),
            Some((requests, per)) => (Some(requests), per),
            None => (None, Duration::ZERO),
        };
        let lease = cx.fetch_timeout().saturating_add(LEASE_MARGIN);
        let limits = Limits::new(lease, requests, per);
        let (key, window) = (session.sealer.name(), session.material.window());
        Ok(Self {
            claim: Claim::new(key, window, Name::random()?, limits),
            session,
            reader: EntryReader::default(),
        })
    }

    /// Takes the token from the store, or fetches under its lease.
    pub(super) async fn with_store(
        &mut self,
    ) -> Result<Result<AccessToken, Error>, StoreUnavailable> {
        let provider_spends = self.session.inner.provider.spends_allowance();
        let mut reservation = Reservation::new(provider_spends);
        let mut round = 0;
        loop {
            let pause = self.session.inner.alone().pause(self.now());
            if pause.is_none() {
                reservation.ask(&self.session.cx).await;
            }
            self.claim.may_fetch = pause.is_none() && reservation.may_fetch();
            let claimed = self.session.age();
            let wait = match self.claim().await? {
                Claimed::Entry(entry) => match self.read(&entry) {
                    Some(result) => return Ok(result),
                    None => continue,
                },
                Claimed::Granted => {
                    let (permit, reader) = (reservation.take(), &self.reader);
                    let fetched =
                        grant::fetch(&self.session, &self.claim, reader, permit, &claimed).await;
                    match fetched {
                        Some(result) => return Ok(result),
                        None => continue,
                    }
                }
                Claimed::Leased(left) => left.min(poll_interval(round)),
                Claimed::RateLimited(wait) => match (pause, &reservation) {
                    (Some(pause), _) => spread(pause.until.saturating_duration_since(self.now())),
                    (None, reservation) => match self.rate_limited(wait, reservation) {
                        Ok(wait) => spread(wait),
                        Err(error) => return Ok(Err(error)),
                    },
                },
            };
            if self.now() >= self.session.cx.deadline() {
                return Ok(Err(match pause {
                    Some(pause) => paused(pause).with_retry_after(wait.min(OPEN_FOR)),
                    None => Error::new(
                        ErrorKind::Timeout,
                        "another process's token request did not end in time",
                    ),
                }));
            }
            reservation.release();
            let until = later(self.now(), wait).min(self.session.cx.deadline());
            let mut timer = self.session.cx.clock().sleep_until(until);
            poll_fn(|cx| match reservation.poll_pending(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => timer.as_mut().poll(cx),
            })
            .await;
            round += 1;
        }
    }

    /// Fetches as a process without a store does, and leaves the token there
    /// when the store works again. `None`: look into the store again.
    pub(super) async fn without_store(&self) -> Option<Result<AccessToken, Error>> {
        let (session, inner) = (&self.session, &self.session.inner);
        if let Some((look_at, error)) = self.must_wait_for_store() {
            return self.wait_for_store(look_at, error).await;
        }
        let permit = match inner.provider.spends_allowance() {
            true => None,
            false => match session.cx.permit().await {
                Ok(permit) => Some(permit),
                Err(error) => return Some(Err(error)),
            },
        };
        inner.breaker.count(Source::Direct);
        let answer = session.mint().await;
        drop(permit);
        match &answer.minted.result {
            Ok(token) => {
                inner.alone().answered();
                let life = token.expires_in();
                let life = life.saturating_sub(session.age_of(&answer.age));
                let token = session.hand_out(token, life, None);
                late::share_later(session, answer, &self.claim);
                Some(Ok(token))
            }
            Err(error) if error.kind() == ErrorKind::RateLimited && !error.is_not_attempted() => {
                let per = self.claim.limits.per.max(OFFICERND.1);
                let (now, chance) = (self.now(), fastrand::f32());
                inner.alone().refused(per, error.retry_after(), now, chance);
                None
            }
            Err(error) if error.is_transient() && !error.is_not_attempted() => {
                let (now, chance) = (self.now(), fastrand::f32());
                inner.alone().failed(error, now, chance);
                // The store may have a token before the endpoint does.
                let longest = self.look_at().saturating_duration_since(now);
                Some(Err(error.clone().with_max_backoff(longest)))
            }
            Err(error) => Some(Err(error.clone())),
        }
    }

    /// Why nothing may be sent without the store now, and when to look into it.
    fn must_wait_for_store(&self) -> Option<(Instant, Error)> {
        let (cx, now) = (&self.session.cx, self.now());
        let mut alone = self.session.inner.alone();
        let (until, error) = if let Some(pause) = alone.pause(now) {
            (pause.until, paused(pause))
        } else {
            let ahead = cx.cause() == Cause::Ahead && cx.urgency() == Urgency::Background;
            let previous = cx.previous.as_ref().filter(|_| ahead)?;
            let (generation, ends_at) = (previous.token.generation(), previous.ends_at);
            let message = "the token store is away; the token still serves, so its refresh waits";
            let error = Error::new(ErrorKind::Store, message).not_attempted();
            (alone.refresh_at(generation, ends_at, now), error)
        };
        drop(alone);
        if until <= now {
            return None;
        }
        let look_at = self.look_at();
        let wait = look_at.saturating_duration_since(now);
        Some((look_at.min(until), error.with_retry_after(wait)))
    }

    /// When the store may work again. Not all at once: each look at the store
    /// is a connection.
    fn look_at(&self) -> Instant {
        let spread = Duration::from_millis(fastrand::u64(100..1000));
        let (now, open_until) = (self.now(), self.session.inner.breaker.open_until());
        later(open_until.unwrap_or(now).max(now), spread)
    }

    /// Waits until the store may work again, or a request begins to wait for
    /// this fetch.
    async fn wait_for_store(
        &self,
        look_at: Instant,
        error: Error,
    ) -> Option<Result<AccessToken, Error>> {
        let cx = &self.session.cx;
        if look_at >= cx.deadline() {
            return Some(Err(error));
        }
        let mut urgency = cx.urgency.clone();
        urgency.mark_unchanged();
        let mut sleep = cx.clock().sleep_until(look_at);
        let mut promoted = std::pin::pin!(urgency.changed());
        let mut given_up = false;
        poll_fn(|cx| {
            if !given_up {
                match promoted.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(()),
                    Poll::Ready(Err(_)) => given_up = true,
                    Poll::Pending => {}
                }
            }
            sleep.as_mut().poll(cx)
        })
        .await;
        None
    }

    async fn claim(&self) -> Result<Claimed, StoreUnavailable> {
        let session = &self.session;
        let claim = || session.inner.store.claim(&self.claim);
        let breaker = &session.inner.breaker;
        breaker.run(session.limits(), "claim", claim).await
    }

    fn read(&mut self, entry: &StoredEntry) -> Option<Result<AccessToken, Error>> {
        self.claim.seen = Some(entry.id.clone());
        self.reader.read(&self.session, entry)
    }

    fn now(&self) -> Instant {
        self.session.cx.clock().now()
    }

    /// No process has the lease, and this one may not take it: how long to
    /// wait, or the error if that is too long.
    fn rate_limited(&self, wait: Duration, reservation: &Reservation) -> Result<Duration, Error> {
        let cx = &self.session.cx;
        if let Reservation::Refused(error) = reservation {
            return Err(error.clone());
        }
        if wait.is_zero() {
            return Ok(MAX_WAIT);
        }
        let pause = match cx.urgency() {
            Urgency::Waiting => wait,
            Urgency::Background => wait.saturating_add(BACKGROUND_DELAY),
        };
        if later(self.now(), pause) > cx.deadline() {
            return Err(crate::allowance::rate_limited(wait));
        }
        Ok(pause)
    }
}

/// Nothing was sent, because the last request without the store has failed.
fn paused(pause: Pause) -> Error {
    let message = "the last token request failed while the token store was away, and the store \
                   has no token yet";
    Error::new(pause.kind, message).not_attempted()
}

/// 50 to 200 ms, doubled with each round up to 0.9 s.
fn poll_interval(round: u32) -> Duration {
    let doubled = fastrand::u64(50..200).saturating_mul(1 << round.min(5));
    Duration::from_millis(doubled.min(900))
}

/// Spreads processes that all wait for one place of the window.
fn spread(wait: Duration) -> Duration {
    let spread = Duration::from_millis(fastrand::u64(50..500));
    wait.saturating_add(spread).min(MAX_WAIT)
}
