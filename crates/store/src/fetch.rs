//! One fetch: claim; then use the entry, send a token request, or wait; and again.

use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use officernd_auth::provider::{Cause, KeyMaterial, KeyedProvider};
use officernd_auth::rate_limit::{Permit, Urgency};
use officernd_auth::{AccessToken, Error, ErrorKind, FetchContext, backoff};
use tokio::runtime::Handle;

use crate::breaker::{OPEN_FOR, StoreStatus};
use crate::clock::{Age, later, timeout_at};
use crate::entry::{Entry, Failure, Opened, Token};
use crate::events;
use crate::provider::Shared;
use crate::seal::{Sealer, window};
use crate::store::{Claim, Claimed, Finish, Limits, Name, StoredEntry, random};

/// A lease lasts this much longer than the request that it covers. A process sends within this time of its
/// claim, or claims again.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// A fetch in the background leaves a free place to waiting requests for this long, in whatever process they
/// are.
const BACKGROUND_DELAY: Duration = Duration::from_secs(1);
/// A fetch claims again after this at the latest: a place may be free early.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// A fetch that has claimed before does not claim with less time than this left: it could not use a grant.
const LAST_CLAIM: Duration = Duration::from_secs(1);
/// A store that returns more entries that are of no use to one fetch is broken.
const MAX_USELESS: u32 = 8;
/// The time limit of the look at the credentials after a token request.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Credentials that were refused may be corrected: look at them this often.
const REFUSED: Duration = Duration::from_secs(5);
/// How long a token that was fetched without the store is offered to it.
const HAND_OVER: Duration = Duration::from_secs(10 * 60);

/// The process's own place in line for a token request.
type Line = Pin<Box<dyn Future<Output = Result<Permit, Error>> + Send>>;

/// One fetch.
pub(crate) struct Fetch<P> {
    shared: Arc<Shared<P>>,
    cx: FetchContext,
    /// The cache counts a token's life from here.
    started_at: Instant,
    material: KeyMaterial,
    sealer: Sealer,
    claim: Claim,
    /// Who minted the cache's token, if that is known.
    last: Option<String>,
    /// The last entry that was of no use, and how many there were.
    known: Option<Opened>,
    useless: u32,
    /// The endpoint refused these credentials. The source may have others any time, so this fetch waits for
    /// nothing.
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
        let (requests, per) = match cx.limit() {
            Some((requests, per)) => (Some(requests), per),
            None => (None, Duration::ZERO),
        };
        let lease = cx.fetch_timeout().saturating_add(LEASE_MARGIN);
        let limits = Limits::new(lease, requests, per);
        let sealer = Sealer::of(&material);
        let claim = Claim::new(sealer.name(), window(&material), Name::random()?, limits);
        let (last, failed) = {
            let memory = shared.memory();
            (
                memory.minted_by(cx.previous()),
                memory.failed_with(&claim.key),
            )
        };
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
        let mut line: Option<Line> = None;
        let mut place: Option<Result<Permit, Error>> = None;
        let mut polls = 0;
        let now = self.now();
        let left = self.cx.deadline().saturating_duration_since(now);
        let last_claim = later(now, left.saturating_sub(LAST_CLAIM.min(left / 4)));
        // Half of the time is for a fetch without the store.
        let mut claimed_by = later(now, left / 2);
        let mut is_first = true;
        loop {
            if !is_first && self.now() >= last_claim {
                return Err(too_late());
            }
            let pause = self.shared.memory().pause(&self.claim.key, self.now());
            if place.is_none() && pause.is_none() {
                line.get_or_insert_with(|| self.line());
                // Only a look: the store may have a token.
                place = first(&mut line, ready(())).await;
            }
            self.claim.may_fetch = pause.is_none() && matches!(place, Some(Ok(_)));
            let asked = self.age();
            let claimed = timeout_at(self.cx.clock(), claimed_by, self.claim()).await;
            let claimed = match claimed {
                Some(Some(claimed)) => claimed,
                // The time is up, which says nothing about the store. The last fetch of a caller may have
                // begun just now: it sends nothing beside a leader.
                None if !is_first || left < LAST_CLAIM / 2 => return Err(too_late()),
                _ => return self.alone(line, place).await,
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
                Claimed::Granted => match place {
                    Some(Ok(place)) if asked.by(self.cx.clock()) < LEASE_MARGIN => {
                        return self.mint(place).await;
                    }
                    // The process stood still, and may have lost the lease.
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
                Claimed::RateLimited(wait) => match (pause, place.take()) {
                    (Some((until, kind)), _) => {
                        let look_at = later(self.now(), OPEN_FOR + spread());
                        return Err(self.paused(kind, until.min(look_at)));
                    }
                    (None, Some(Err(error))) if wait.is_zero() => return Err(error),
                    // The fleet has a place, the process has none: wait for that.
                    (None, None) if wait.is_zero() => MAX_WAIT,
                    _ => self.turn(wait, last_claim)?,
                },
            };
            // No place is held while waiting.
            drop(place.take());
            let until = later(self.now(), wait).min(last_claim);
            place = first(&mut line, self.cx.clock().sleep_until(until)).await;
        }
    }

    fn line(&self) -> Line {
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
                     many entries, or a grant that was not asked for",
                )),
                false => Ok(claimed),
            }
        };
        let breaker = &self.shared.breaker;
        breaker.run(self.cx.clock(), "claim", checked).await
    }

    /// The token or the failure of an entry; `None` if it is of no use.
    fn read(&mut self, stored: &StoredEntry) -> Option<Result<AccessToken, Error>> {
        self.claim.seen = Some(stored.id.clone());
        let opened = Opened::new(stored, &self.sealer, self.cx.clock())?;
        match opened.read(&self.cx, self.last.as_deref()) {
            Some(Ok(token)) => {
                self.count("taken", |counts| &mut counts.taken);
                events::token_shared(self.cx.cause().as_str(), token.left);
                Some(self.hand_out(token))
            }
            Some(Err(error)) => Some(Err(self.correctable(error))),
            None => {
                self.known = Some(opened);
                None
            }
        }
    }

    /// How long to wait for a place in the fleet's window, or the error if that is too long.
    fn turn(&self, wait: Duration, last_claim: Instant) -> Result<Duration, Error> {
        let delayed = match self.cx.urgency() {
            Urgency::Background => wait.saturating_add(BACKGROUND_DELAY),
            _ => wait,
        };
        if later(self.now(), delayed) >= last_claim {
            return Err(rate_limited(wait));
        }
        Ok(delayed.saturating_add(spread() / 2).min(MAX_WAIT))
    }

    /// Sends a token request under the lease, and saves what it brings.
    async fn mint(self, place: Permit) -> Result<AccessToken, Error> {
        let (result, age, shareable) = self.request(place).await;
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
                let left = token.expires_in().saturating_sub(age.by(self.cx.clock()));
                Token::new(token, holder).with_left(left)
            }
            // The token that still lives is saved again, beside the failure.
            Err(_) if failure.is_some() => self.known.as_ref().and_then(|it| it.token(self.now())),
            Err(_) => None,
        };
        let is_any = shareable && (token.is_some() || failure.is_some());
        let entry = is_any.then(|| Entry::new(self.cx.clock(), token, failure));
        let frees_after = if sent {
            self.claim.limits.per
        } else {
            Duration::ZERO
        };
        let finish = finish(&self.claim, &self.sealer, entry, frees_after);
        let finished = self.shared.store.finish(&finish);
        let breaker = &self.shared.breaker;
        let finished = breaker.run(self.cx.clock(), "finish", finished);
        let saved = finished.await == Some(true) && finish.entry.is_some();
        match result {
            Ok(token) => Ok(self.fetched(token, age, shareable, saved)),
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

    /// Fetches without the store, and hands the token over to it later.
    async fn alone(
        self,
        line: Option<Line>,
        place: Option<Result<Permit, Error>>,
    ) -> Result<AccessToken, Error> {
        if let Some(error) = self.must_wait() {
            return Err(error);
        }
        let mut line = Some(line.unwrap_or_else(|| self.line()));
        let place = match place {
            None if self.refused => first(&mut line, ready(())).await,
            None => first(&mut line, pending()).await,
            place => place,
        };
        let Some(place) = place.transpose()? else {
            return Err(self.paused(ErrorKind::InvalidClient, later(self.now(), REFUSED)));
        };
        self.count("direct", |counts| &mut counts.direct);
        let (result, age, shareable) = self.request(place).await;
        match result {
            Ok(token) => Ok(self.fetched(token, age, shareable, false)),
            Err(error) if error.is_not_attempted() => Err(error),
            Err(error) => {
                let now = self.now();
                let mut memory = self.shared.memory();
                let failures = memory.failures.saturating_add(1);
                let (hold, spread) = match error.kind() {
                    // The window counts refused requests, so processes that share nothing must spread out to
                    // get in.
                    ErrorKind::RateLimited => {
                        (backoff(&error, failures, 1.0), 1.0 + 3.0 * fastrand::f32())
                    }
                    _ => (backoff(&error, failures, fastrand::f32()), 1.0),
                };
                memory.failed(&self.claim.key, later(now, hold), error.kind());
                let until = later(now, hold.mul_f32(spread));
                memory.alone_until = Some(until);
                drop(memory);
                // The store may have a token before the endpoint does.
                let again = until.min(self.look_at()).saturating_duration_since(now);
                Err(self.correctable(error.with_retry_after(again).with_max_backoff(again)))
            }
        }
    }

    /// Returns the error if no request may be sent without the store yet.
    fn must_wait(&self) -> Option<Error> {
        let (now, look_at) = (self.now(), self.look_at());
        let mut memory = self.shared.memory();
        if let Some((until, kind)) = memory.pause_alone(&self.claim.key, now) {
            drop(memory);
            return Some(self.paused(kind, until.min(look_at)));
        }
        let ahead = self.cx.cause() == Cause::Ahead && self.cx.urgency() == Urgency::Background;
        let generation = self.cx.previous().filter(|_| ahead)?.generation();
        let ends_at = later(now, self.cx.previous_left().unwrap_or_default());
        let until = memory.refresh_at(generation, ends_at, now);
        let message = "the token store is away; the token still serves, so its refresh waits";
        let error = Error::new(ErrorKind::Store, message).not_attempted();
        let wait = look_at.min(until).saturating_duration_since(now);
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

    /// Shortens the wait after `invalid_client` to 5 s if the credentials can change. Looking at them costs
    /// no token request.
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
    fn look_at(&self) -> Instant {
        let open_until = self.shared.breaker.open_until();
        later(open_until.unwrap_or(self.now()).max(self.now()), spread())
    }

    /// Sends a token request. Returns its result, its age since right before it was sent, and whether the
    /// credentials of the claim are still in use: then the result may be stored under them.
    async fn request(&self, place: Permit) -> (Result<AccessToken, Error>, Age, bool) {
        let (clock, provider) = (self.cx.clock(), &self.shared.provider);
        let result = self.cx.fetch_from(provider, place).await;
        let age = self.cx.sent_at().map_or_else(|| self.age(), Age::since);
        let shareable = if result.is_err() && self.cx.sent_at().is_none() {
            // There is nothing to share.
            false
        } else {
            let until = later(clock.now(), SECOND_LOOK);
            let material = timeout_at(clock, until, provider.key_material()).await;
            matches!(material, Some(Ok(material)) if material == self.material)
        };
        (result, age, shareable)
    }

    /// Returns a stored token. The cache counts its life from the start of the fetch, so the time spent
    /// waiting is added.
    fn hand_out(&self, token: Token) -> Result<AccessToken, Error> {
        let life = token.left.saturating_add(self.waited());
        let bearer = token.bearer(life)?;
        let minted_by = Some(token.minted_by);
        self.shared.memory().succeeded(&bearer, minted_by);
        Ok(bearer)
    }

    fn waited(&self) -> Duration {
        self.now().saturating_duration_since(self.started_at)
    }

    /// Hands out a token that was fetched. If the store does not have it, a task stores it later.
    fn fetched(self, token: AccessToken, age: Age, shareable: bool, saved: bool) -> AccessToken {
        let minted_by = self.claim.holder.as_str().to_owned();
        let known = saved.then(|| minted_by.clone());
        self.shared.memory().succeeded(&token, known);
        let runtime = Handle::try_current();
        if let Some(runtime) = runtime.ok().filter(|_| shareable && !saved) {
            let mut claim = self.claim;
            (claim.seen, claim.may_fetch) = (None, true);
            // The request was sent: it counts, whether there is a place or not.
            claim.limits.requests = claim.limits.requests.map(|_| u32::MAX);
            let late = Late {
                number: self.shared.memory().next_late(),
                token: Token::new(&token, &minted_by),
                sealer: self.sealer,
                claim,
                age,
            };
            runtime.spawn(hand_over(Arc::downgrade(&self.shared), self.cx, late));
        }
        token
    }

    fn count(&self, name: &'static str, field: fn(&mut StoreStatus) -> &mut u64) {
        self.shared.breaker.count(name, field);
    }

    fn now(&self) -> Instant {
        self.cx.clock().now()
    }

    fn age(&self) -> Age {
        Age::new(self.cx.clock())
    }
}

/// A token that was fetched without the store.
struct Late {
    /// The newest one is handed over.
    number: u64,
    claim: Claim,
    sealer: Sealer,
    token: Token,
    age: Age,
}

/// Offers a token to the store every 10 s, until the store has it or another one with at least half as much
/// life left.
///
/// Keeps the context of the fetch for its clock.
async fn hand_over<P>(shared: Weak<Shared<P>>, cx: FetchContext, mut late: Late) {
    let clock = cx.clock();
    let until = later(clock.now(), HAND_OVER);
    let mut soon = false;
    while let Some(shared) = shared.upgrade() {
        let at = match shared.breaker.open_until() {
            // As soon as the breaker allows, before waiting fetches try.
            Some(at) => at.max(clock.now()),
            None if soon => clock.now(),
            None => later(clock.now(), OPEN_FOR),
        };
        clock.sleep_until(later(at, spread() / 10)).await;
        let age = late.age.by(clock);
        let left = late.token.granted.saturating_sub(age);
        let is_current = shared.memory().late == late.number && clock.now() < until;
        let token = late.token.clone().with_left(left);
        let Some(token) = token.filter(|_| is_current) else {
            return;
        };
        let (store, breaker) = (&shared.store, &shared.breaker);
        let claimed = breaker.run(clock, "claim", store.claim(&late.claim));
        match claimed.await {
            Some(Claimed::Entry(stored)) => {
                let theirs = Opened::new(&stored, &late.sealer, clock);
                let theirs = theirs.and_then(|theirs| theirs.token(clock.now()));
                if theirs.is_some_and(|theirs| theirs.left >= left / 2) {
                    return;
                }
                soon = late.claim.seen.replace(stored.id).is_none();
            }
            Some(Claimed::Granted) => {
                let entry = Entry::new(clock, Some(token), None);
                let frees_after = late.claim.limits.per.saturating_sub(age);
                let finish = finish(&late.claim, &late.sealer, Some(entry), frees_after);
                let finished = breaker.run(clock, "finish", store.finish(&finish));
                if finished.await.is_some() {
                    return;
                }
            }
            // Another process fetches, or the store is still away.
            _ => soon = false,
        }
    }
}

/// The fleet's window has no place in time.
fn rate_limited(wait: Duration) -> Error {
    let message = "the processes that share the token store have used up the rate limit on token \
                   requests; nothing was sent";
    let error = Error::new(ErrorKind::RateLimited, message).not_attempted();
    error.with_retry_after(wait)
}

/// The time of a fetch is up while it waits for another process.
fn too_late() -> Error {
    let message = "another process's token request did not end in time";
    Error::new(ErrorKind::Timeout, message).not_attempted()
}

/// The end of a claim, with this entry, sealed.
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

/// The place in line, if it is granted or refused before `end`.
async fn first(
    line: &mut Option<Line>,
    mut end: impl Future<Output = ()> + Unpin,
) -> Option<Result<Permit, Error>> {
    let place = poll_fn(|cx| {
        let place = line.as_mut().map(|line| line.as_mut().poll(cx));
        match place {
            Some(Poll::Ready(place)) => Poll::Ready(Some(place)),
            _ => Pin::new(&mut end).poll(cx).map(|()| None),
        }
    });
    let place = place.await;
    line.take_if(|_| place.is_some());
    place
}

/// 50 to 200 ms, doubled with each round up to 0.9 s.
fn poll(round: u32) -> Duration {
    let doubled = fastrand::u64(50..200).saturating_mul(1 << round.min(5));
    Duration::from_millis(doubled.min(900))
}

/// 100 ms to 1 s, so that processes do not all come at once.
fn spread() -> Duration {
    Duration::from_millis(fastrand::u64(100..1000))
}
