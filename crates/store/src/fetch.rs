//! One fetch: claims, and then uses the entry, sends a token request, or waits and claims again.

use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use officernd_auth::provider::{Cause, KeyMaterial, KeyedProvider};
use officernd_auth::rate_limit::{Permit, Urgency};
use officernd_auth::{AccessToken, Error, ErrorKind, FetchContext, backoff};
use tokio::runtime::Handle;

use crate::breaker::{OPEN_FOR, StoreStatus};
use crate::clock::{age, later, timeout_at};
use crate::entry::{Entry, Failure, Opened, Token};
use crate::events;
use crate::provider::Shared;
use crate::seal::{Sealer, window};
use crate::store::{Claim, Claimed, Finish, Limits, Name, StoredEntry, random};

/// How much longer a lease lasts than its token request. A process sends within this time of its claim, or
/// claims again.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How much longer a background fetch waits for a slot, so that waiting requests of any process go first.
const BACKGROUND_DELAY: Duration = Duration::from_secs(1);
/// The longest wait between two claims: a slot may become free early.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// A fetch does not claim again in this time before its deadline: it could not use a grant.
const LAST_CLAIM: Duration = Duration::from_secs(1);
/// The maximum number of useless entries in one fetch. A store that returns more is broken.
const MAX_USELESS: u32 = 8;
/// The time limit for reading the credentials after a token request.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often to read credentials that were refused, because they may be corrected.
const REFUSED: Duration = Duration::from_secs(5);
/// How long to offer an unstored token to the store.
const OFFER_FOR: Duration = Duration::from_secs(10 * 60);

/// A place in the queue for a permit of this process.
type Queued = Pin<Box<dyn Future<Output = Result<Permit, Error>> + Send>>;

/// One fetch.
pub(crate) struct Fetch<P> {
    shared: Arc<Shared<P>>,
    cx: FetchContext,
    /// The cache counts a token's lifetime from here.
    started_at: Instant,
    material: KeyMaterial,
    sealer: Sealer,
    claim: Claim,
    /// The holder that minted the cache's token, if known.
    last: Option<String>,
    /// The last useless entry, and the number of useless entries.
    known: Option<Opened>,
    useless: u32,
    /// Whether the endpoint refused these credentials and the source may return different ones. Then this fetch
    /// does not wait, so that the next fetch reads the credentials again.
    refused: bool,
}

impl<P: KeyedProvider> Fetch<P> {
    pub(crate) async fn new(shared: &Arc<Shared<P>>, cx: FetchContext) -> Result<Self, Error> {
        let started_at = cx.clock().now();
        let until = later(started_at, cx.fetch_timeout()).min(cx.deadline());
        let material = timeout_at(cx.clock(), until, shared.provider.key_material()).await;
        let material = material.ok_or_else(|| {
            let message = "the credentials could not be read within the fetch timeout";
            let error = Error::new(ErrorKind::Timeout, message).not_attempted();
            error.with_retry_after(REFUSED).with_max_backoff(REFUSED)
        })??;
        let (requests, per) = cx.limit().unzip();
        let lease = cx.fetch_timeout().saturating_add(LEASE_MARGIN);
        let limits = Limits::new(lease, requests, per.unwrap_or_default());
        let sealer = Sealer::of(&material);
        let claim = Claim::new(sealer.name(), window(&material), Name::random()?, limits);
        let last = shared.memory().minted_by(cx.previous());
        let failed = shared.memory().failed_with(&claim.key);
        Ok(Self {
            shared: Arc::clone(shared),
            started_at,
            claim,
            last,
            refused: failed == Some(ErrorKind::InvalidClient) && material.may_change(),
            material,
            sealer,
            cx: match failed.is_some_and(|kind| !kind.is_transient()) {
                true => cx,
                false => cx.not_failing(),
            },
            known: None,
            useless: 0,
        })
    }

    /// Takes the token from the store, or fetches it under the store's lease.
    pub(crate) async fn run(mut self) -> Result<AccessToken, Error> {
        let mut queued: Option<Queued> = None;
        let mut permit: Option<Result<Permit, Error>> = None;
        let mut polls = 0;
        let now = self.now();
        let left = self.cx.deadline().saturating_duration_since(now);
        let last_claim = later(now, left.saturating_sub(LAST_CLAIM.min(left / 4)));
        // Leaves half of the time for a token request without the store.
        let mut claimed_by = later(now, left / 2);
        let mut is_first = true;
        loop {
            if !is_first && self.now() >= last_claim {
                return Err(too_late());
            }
            let pause = self.shared.memory().pause(&self.claim.key, self.now());
            if permit.is_none() && pause.is_none() {
                queued.get_or_insert_with(|| self.queue());
                // Does not wait for a permit: the store may have a token.
                permit = permit_before(ready(()), &mut queued).await;
            }
            self.claim.may_fetch = pause.is_none() && matches!(permit, Some(Ok(_)));
            let claimed_at = self.moment();
            let claimed = timeout_at(self.cx.clock(), claimed_by, self.claim()).await;
            let claimed = match claimed {
                Some(Some(claimed)) => claimed,
                // The claim ended at the deadline, not because of the store, so another process may send now.
                // This includes a first claim that started just before the deadline.
                None if !is_first || left < LAST_CLAIM / 2 => return Err(too_late()),
                _ => return self.fetch_directly(queued, permit).await,
            };
            (is_first, claimed_by) = (false, self.cx.deadline());
            let wait = match claimed {
                Claimed::Entry(entry) => {
                    if let Some(result) = self.read(&entry) {
                        return result;
                    }
                    self.useless += 1;
                    match self.useless {
                        1 => continue,
                        more => poll(more),
                    }
                }
                Claimed::Granted => match permit {
                    Some(Ok(permit)) if age(self.cx.clock(), claimed_at) < LEASE_MARGIN => {
                        return self.fetch_under_lease(permit).await;
                    }
                    // The process was suspended, and may have lost the lease.
                    _ => continue,
                },
                _ if self.refused && self.waited() + poll(polls) >= REFUSED => {
                    return Err(self.paused(ErrorKind::InvalidClient, self.now()));
                }
                Claimed::RateLimited(_) if self.refused && pause.is_none() => {
                    return Err(self.paused(ErrorKind::InvalidClient, later(self.now(), REFUSED)));
                }
                Claimed::Leased(_) => {
                    polls += 1;
                    poll(polls - 1)
                }
                Claimed::RateLimited(wait) => match (pause, permit.take()) {
                    (Some((until, kind)), _) => {
                        let next_look = later(self.now(), OPEN_FOR + spread());
                        return Err(self.paused(kind, until.min(next_look)));
                    }
                    (None, Some(Err(error))) if wait.is_zero() => return Err(error),
                    // The store has a free slot, but this process has no permit yet.
                    (None, None) if wait.is_zero() => MAX_WAIT,
                    _ => self.wait_for_slot(wait, last_claim)?,
                },
            };
            // Others may use the permit while this fetch waits.
            drop(permit.take());
            let until = later(self.now(), wait).min(last_claim);
            permit = permit_before(self.cx.clock().sleep_until(until), &mut queued).await;
        }
    }

    fn queue(&self) -> Queued {
        let cx = self.cx.clone();
        Box::pin(async move { cx.reserve().await })
    }

    async fn claim(&self) -> Option<Claimed> {
        let checked = async {
            let claimed = self.shared.store.claim(&self.claim).await?;
            let breaks_contract = match &claimed {
                Claimed::Entry(entry) => {
                    self.claim.seen.as_ref() == Some(&entry.id) || self.useless >= MAX_USELESS
                }
                Claimed::Granted => !self.claim.may_fetch,
                Claimed::Leased(_) | Claimed::RateLimited(_) => false,
            };
            match breaks_contract {
                true => Err(Error::new(
                    ErrorKind::Store,
                    "the token store broke its contract: it returned an entry that was seen, too \
                     many entries, or a grant that was not requested",
                )),
                false => Ok(claimed),
            }
        };
        let breaker = &self.shared.breaker;
        breaker.run(self.cx.clock(), "claim", checked).await
    }

    /// Returns the token or the failure of an entry; `None` if it is useless.
    fn read(&mut self, stored: &StoredEntry) -> Option<Result<AccessToken, Error>> {
        self.claim.seen = Some(stored.id.clone());
        let opened = Opened::new(stored, &self.sealer, self.cx.clock())?;
        match opened.read(&self.cx, self.last.as_deref()) {
            Some(Ok(token)) => {
                self.count("taken", |counts| &mut counts.taken);
                events::token_shared(self.cx.cause().as_str(), token.left);
                Some(self.take(token))
            }
            Some(Err(error)) => Some(Err(self.correctable(error))),
            None => {
                self.known = Some(opened);
                None
            }
        }
    }

    /// Returns a stored token. The cache counts its lifetime from the start of the fetch, so this adds the time
    /// that the fetch has waited.
    fn take(&self, token: Token) -> Result<AccessToken, Error> {
        let life = token.left.saturating_add(self.waited());
        let bearer = token.bearer(life)?;
        let minted_by = Some(token.minted_by);
        self.shared.memory().succeeded(&bearer, minted_by);
        Ok(bearer)
    }

    /// Returns how long to wait for a slot in the store's window, or the error if that is too long.
    fn wait_for_slot(&self, wait: Duration, last_claim: Instant) -> Result<Duration, Error> {
        let delayed = match self.cx.urgency() {
            Urgency::Background => wait.saturating_add(BACKGROUND_DELAY),
            _ => wait,
        };
        if later(self.now(), delayed) >= last_claim {
            let message = "the processes that share the token store have used up the rate limit on \
                           token requests; nothing was sent";
            let error = Error::new(ErrorKind::RateLimited, message).not_attempted();
            return Err(error.with_retry_after(wait));
        }
        Ok(delayed.saturating_add(spread() / 2).min(MAX_WAIT))
    }

    /// Sends a token request under the lease, and stores its token or its failure.
    async fn fetch_under_lease(self, permit: Permit) -> Result<AccessToken, Error> {
        let (result, sent_at, shareable) = self.send(permit).await;
        let sent = self.cx.sent_at().is_some();
        let failure = match &result {
            Err(error) if sent => {
                let earlier = self.known.as_ref().and_then(|it| it.failure(self.now()));
                Failure::after(error, earlier)
            }
            _ => None,
        };
        if sent {
            self.count("fetched", |counts| &mut counts.fetched);
        }
        let holder = self.claim.holder.as_str();
        let token = match &result {
            Ok(token) => {
                let age = age(self.cx.clock(), sent_at);
                Token::new(token, holder).with_left(token.expires_in().saturating_sub(age))
            }
            // Stores the old token, if it is valid, together with the failure.
            Err(_) if failure.is_some() => self.known.as_ref().and_then(|it| it.token(self.now())),
            Err(_) => None,
        };
        let has_content = shareable && (token.is_some() || failure.is_some());
        let entry = has_content.then(|| Entry::new(self.cx.clock(), token, failure));
        let frees_after = match sent {
            true => self.claim.limits.per,
            false => Duration::ZERO,
        };
        let finish = finish(&self.claim, &self.sealer, entry, frees_after);
        let finished = self.shared.store.finish(&finish);
        let breaker = &self.shared.breaker;
        let finished = breaker.run(self.cx.clock(), "finish", finished);
        let saved = finished.await == Some(true) && finish.entry.is_some();
        match result {
            Ok(token) => Ok(self.fetched(token, sent_at, shareable, saved)),
            Err(error) => Err(match failure {
                Some(failure) => {
                    let until = later(self.now(), failure.hold);
                    let key = &self.claim.key;
                    self.shared.memory().failed(key, until, error.kind());
                    let error = error.with_retry_after(failure.hold);
                    self.correctable(error.with_max_backoff(failure.hold))
                }
                None => error,
            }),
        }
    }

    /// Sends a token request without the store, and offers the token to the store later.
    async fn fetch_directly(
        self,
        queued: Option<Queued>,
        permit: Option<Result<Permit, Error>>,
    ) -> Result<AccessToken, Error> {
        if let Some(error) = self.must_wait() {
            return Err(error);
        }
        let mut queued = Some(queued.unwrap_or_else(|| self.queue()));
        let permit = match permit {
            None if self.refused => permit_before(ready(()), &mut queued).await,
            None => permit_before(pending(), &mut queued).await,
            permit => permit,
        };
        let Some(permit) = permit.transpose()? else {
            return Err(self.paused(ErrorKind::InvalidClient, later(self.now(), REFUSED)));
        };
        self.count("direct", |counts| &mut counts.direct);
        let (result, sent_at, shareable) = self.send(permit).await;
        match result {
            Ok(token) => Ok(self.fetched(token, sent_at, shareable, false)),
            Err(error) if error.is_not_attempted() => Err(error),
            Err(error) => {
                let now = self.now();
                let mut memory = self.shared.memory();
                let failures = memory.failures.saturating_add(1);
                let (hold, factor) = match error.kind() {
                    // The endpoint counts refused requests too, so processes without a store must spread out.
                    ErrorKind::RateLimited => {
                        (backoff(&error, failures, 1.0), 1.0 + 3.0 * fastrand::f32())
                    }
                    _ => (backoff(&error, failures, fastrand::f32()), 1.0),
                };
                memory.failed(&self.claim.key, later(now, hold), error.kind());
                let until = later(now, hold.mul_f32(factor));
                memory.direct_after = Some(until);
                drop(memory);
                // The store may have a token before the backoff ends.
                let wait = until.min(self.next_look());
                let wait = wait.saturating_duration_since(now);
                Err(self.correctable(error.with_retry_after(wait).with_max_backoff(wait)))
            }
        }
    }

    /// Returns the error if no token request may be sent without the store yet.
    fn must_wait(&self) -> Option<Error> {
        let (now, next_look) = (self.now(), self.next_look());
        let mut memory = self.shared.memory();
        if let Some((until, kind)) = memory.pause_direct(&self.claim.key, now) {
            drop(memory);
            return Some(self.paused(kind, until.min(next_look)));
        }
        let ahead = self.cx.cause() == Cause::Ahead && self.cx.urgency() == Urgency::Background;
        let generation = self.cx.previous().filter(|_| ahead)?.generation();
        let ends_at = later(now, self.cx.previous_left().unwrap_or_default());
        let until = memory.refresh_at(generation, ends_at, now);
        let message =
            "the token store is out of use; the token is still valid, so its refresh waits";
        let error = Error::new(ErrorKind::Store, message).not_attempted();
        let wait = next_look.min(until).saturating_duration_since(now);
        (until > now).then(|| error.with_retry_after(wait))
    }

    /// Makes the error for a backoff that ends at `until`.
    fn paused(&self, kind: ErrorKind, until: Instant) -> Error {
        let message = "the last token request failed, and the token store has no token yet";
        let wait = until.saturating_duration_since(self.now());
        let error = Error::new(kind, message).not_attempted();
        match kind.is_transient() {
            true => error.with_retry_after(wait),
            // Waiting callers get it at once.
            false => self.correctable(error.with_retry_after(wait).with_max_backoff(wait)),
        }
    }

    /// Shortens the wait after `invalid_client` to 5 s if the credentials can change. Reading them costs no
    /// token request.
    fn correctable(&self, error: Error) -> Error {
        let refused = error.kind() == ErrorKind::InvalidClient && self.material.may_change();
        match error.retry_after() {
            Some(wait) if refused && wait > REFUSED => {
                error.with_retry_after(REFUSED).with_max_backoff(REFUSED)
            }
            _ => error,
        }
    }

    /// Returns when to try the store again, plus 0.1 to 1 s so that processes do not all connect at once.
    fn next_look(&self) -> Instant {
        let open_until = self.shared.breaker.open_until();
        later(open_until.unwrap_or(self.now()).max(self.now()), spread())
    }

    /// Sends a token request. Returns its result, when it was sent, and whether the credentials of the claim
    /// are still current, so that the result may be stored under them.
    async fn send(
        &self,
        permit: Permit,
    ) -> (Result<AccessToken, Error>, (Instant, SystemTime), bool) {
        let (clock, provider) = (self.cx.clock(), &self.shared.provider);
        let result = self.cx.fetch_from(provider, permit).await;
        let sent_at = self.cx.sent_at();
        let shareable = if result.is_err() && sent_at.is_none() {
            // Nothing was sent, so there is no result to share.
            false
        } else {
            let until = later(clock.now(), SECOND_LOOK);
            let material = timeout_at(clock, until, provider.key_material()).await;
            matches!(material, Some(Ok(material)) if material == self.material)
        };
        (result, sent_at.unwrap_or_else(|| self.moment()), shareable)
    }

    /// Returns a token that was just fetched. If it was not saved, a task offers it to the store.
    fn fetched(
        self,
        token: AccessToken,
        sent_at: (Instant, SystemTime),
        shareable: bool,
        saved: bool,
    ) -> AccessToken {
        let minted_by = self.claim.holder.as_str().to_owned();
        let known = saved.then(|| minted_by.clone());
        let number = self.shared.memory().succeeded(&token, known);
        let runtime = Handle::try_current();
        if let Some(runtime) = runtime.ok().filter(|_| shareable && !saved) {
            let mut claim = self.claim;
            (claim.seen, claim.may_fetch) = (None, true);
            // The request was sent, so it takes a slot even if none is free.
            claim.limits.requests = claim.limits.requests.map(|_| u32::MAX);
            let unstored = Unstored {
                number,
                token: Token::new(&token, &minted_by),
                sealer: self.sealer,
                claim,
                sent_at,
            };
            runtime.spawn(offer(Arc::downgrade(&self.shared), self.cx, unstored));
        }
        token
    }

    fn count(&self, name: &'static str, field: fn(&mut StoreStatus) -> &mut u64) {
        self.shared.breaker.count(name, field);
    }

    fn waited(&self) -> Duration {
        self.now().saturating_duration_since(self.started_at)
    }

    fn now(&self) -> Instant {
        self.cx.clock().now()
    }

    /// Returns the time of both clocks.
    fn moment(&self) -> (Instant, SystemTime) {
        (self.now(), self.cx.clock().wall())
    }
}

/// A token that the store does not have.
struct Unstored {
    /// Offered while the last token has this number.
    number: u64,
    claim: Claim,
    sealer: Sealer,
    token: Token,
    sent_at: (Instant, SystemTime),
}

/// Offers a token to the store every 10 s, until the store has it, or another token with at least half of its
/// remaining lifetime.
///
/// Uses only the clock of `cx`.
async fn offer<P>(shared: Weak<Shared<P>>, cx: FetchContext, mut unstored: Unstored) {
    let clock = cx.clock();
    let until = later(clock.now(), OFFER_FOR);
    let mut soon = false;
    while let Some(shared) = shared.upgrade() {
        let at = match shared.breaker.open_until() {
            // Claims as soon as the breaker allows, so that it comes before waiting fetches.
            Some(at) => at.max(clock.now()),
            None if soon => clock.now(),
            None => later(clock.now(), OPEN_FOR),
        };
        clock.sleep_until(later(at, spread() / 10)).await;
        let age = age(clock, unstored.sent_at);
        let left = unstored.token.granted.saturating_sub(age);
        let is_current = shared.memory().is_last(unstored.number) && clock.now() < until;
        let token = unstored.token.clone().with_left(left);
        let Some(token) = token.filter(|_| is_current) else {
            return;
        };
        let (store, breaker) = (&shared.store, &shared.breaker);
        let claimed = breaker.run(clock, "claim", store.claim(&unstored.claim));
        match claimed.await {
            Some(Claimed::Entry(stored)) => {
                let theirs = Opened::new(&stored, &unstored.sealer, clock);
                let theirs = theirs.and_then(|theirs| theirs.token(clock.now()));
                if theirs.is_some_and(|theirs| theirs.left >= left / 2) {
                    return;
                }
                soon = unstored.claim.seen.replace(stored.id).is_none();
            }
            Some(Claimed::Granted) => {
                let entry = Entry::new(clock, Some(token), None);
                let frees_after = unstored.claim.limits.per.saturating_sub(age);
                let finish = finish(&unstored.claim, &unstored.sealer, Some(entry), frees_after);
                let finished = breaker.run(clock, "finish", store.finish(&finish));
                if finished.await.is_some() {
                    return;
                }
            }
            // Another process fetches, or the store is still out of use.
            _ => soon = false,
        }
    }
}

/// Makes the error of a fetch whose deadline has passed while another process had the lease.
fn too_late() -> Error {
    let message = "another process's token request did not end in time";
    Error::new(ErrorKind::Timeout, message).not_attempted()
}

/// Makes the arguments of `finish` for this claim, and seals the entry.
fn finish(claim: &Claim, sealer: &Sealer, entry: Option<Entry>, frees_after: Duration) -> Finish {
    let (key, window) = (claim.key.clone(), claim.window.clone());
    let finish = Finish::new(key, window, claim.holder.clone(), frees_after);
    let sealed = entry.and_then(|entry| {
        let sealed = sealer.seal(random().ok()?, &entry.encode())?;
        Some((sealed, entry.life()))
    });
    match sealed {
        Some((sealed, life)) => finish.entry(sealed, life),
        None => finish,
    }
}

/// Returns the queued permit, or its error, if it is ready before `end`.
async fn permit_before(
    mut end: impl Future<Output = ()> + Unpin,
    queued: &mut Option<Queued>,
) -> Option<Result<Permit, Error>> {
    let permit = poll_fn(|cx| {
        let permit = queued.as_mut().map(|queued| queued.as_mut().poll(cx));
        match permit {
            Some(Poll::Ready(permit)) => Poll::Ready(Some(permit)),
            _ => Pin::new(&mut end).poll(cx).map(|()| None),
        }
    });
    let permit = permit.await;
    queued.take_if(|_| permit.is_some());
    permit
}

/// Returns the pause before the next claim: 50 to 200 ms, doubled with each round, at most 0.9 s.
fn poll(round: u32) -> Duration {
    let doubled = fastrand::u64(50..200).saturating_mul(1 << round.min(5));
    Duration::from_millis(doubled.min(900))
}

/// Returns 100 ms to 1 s, so that processes do not all claim at once.
fn spread() -> Duration {
    Duration::from_millis(fastrand::u64(100..1000))
}
