use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::error::Error;
use crate::fleet::{Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, StoredEntry, TokenStore};

/// Does not end while a busy machine does something else.
const LONG: Duration = Duration::from_secs(30);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);
/// Long enough to finish in.
const MEDIUM: Duration = Duration::from_secs(2);
const NO_LIMIT: Limits = limits(None, LONG, SHORT);

/// A rule of [`TokenStore`] that a store broke.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, Violation, check_store};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let result: Result<(), Violation> = check_store(&MemoryStore::new()).await;
/// assert!(result.is_ok());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Violation {
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store breaks a rule: {}", self.rule)
    }
}

impl std::error::Error for Violation {}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        let rule = format!("operations succeed ({error})");
        Self { rule }
    }
}

/// Checks that a store keeps the rules of [`TokenStore`].
///
/// Uses new keys and leaves nothing that does not expire, so it can run on a
/// store that others use. Waits for content to expire, about four seconds in
/// all; a store on tokio's clock can be checked with that paused.
///
/// # Errors
///
/// The first rule that the store broke.
///
/// ```
/// use officernd_auth::testing::{MemoryStore, check_store};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), officernd_auth::testing::Violation> {
/// // In place of this: your own.
/// let store = MemoryStore::new();
/// check_store(&store).await?;
/// # Ok(())
/// # }
/// ```
pub async fn check_store<S: TokenStore>(store: &S) -> Result<(), Violation> {
    leases(store).await?;
    entries(store).await?;
    late_holders(store).await?;
    places(store).await?;
    ended_places(store).await
}

async fn leases<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (me, other) = (Name::random()?, Name::random()?);
    let mut it = Subject::new(store, NO_LIMIT)?;
    must(it.entry().await?.is_none(), "an unknown key has no entry")?;
    it.grants(&me, "a free lease is granted").await?;
    it.grants(&me, "a repeated claim is granted again").await?;
    let left = it.wait(&other, "a lease is granted to one holder").await?;
    must(
        left > LONG / 2 && left <= LONG,
        "others learn how long a lease lasts",
    )?;
    it.sibling()?
        .grants(&other, "each key has its own lease")
        .await?;
    let gave_up = it.release(&other, SHORT).await?;
    must(!gave_up, "a holder cannot give up the lease of another")?;
    it.wait(&other, "a lease stays when another holder finishes")
        .await?;
    must(it.release(&me, SHORT).await?, "a holder gives up its lease")?;
    let look = Claim {
        may_fetch: false,
        ..it.request(&other)
    };
    let seen = store.claim(&look).await?;
    must(
        seen == Claimed::RateLimited(Duration::ZERO),
        "a caller that may not fetch is granted nothing",
    )?;
    it.grants(&other, "a lease given up is free").await?;
    it.release(&other, SHORT).await?;

    it.limits.lease = SHORT;
    it.grants(&me, "a lease can be short").await?;
    passed(SHORT).await;
    it.limits.lease = LONG;
    it.grants(&other, "a lease ends by itself").await?;
    let gave_up = it.release(&me, SHORT).await?;
    must(!gave_up, "a holder that was late has lost its lease")?;
    it.wait(&me, "a holder that was late is granted nothing")
        .await?;
    it.limits.lease = SHORT;
    let rule = "a lease that lasts longer than any counts as absent";
    it.grants(&me, rule).await?;

    for _ in 0..8 {
        let it = Subject::new(store, NO_LIMIT)?;
        let claims = (0..16).map(|_| async { it.claim(&Name::random()?).await });
        let rule = "of many claims at one instant, one is granted";
        must(granted(claims).await? == 1, rule)?;
    }
    Ok(())
}

async fn entries<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (me, other) = (Name::random()?, Name::random()?);
    let it = Subject::new(store, NO_LIMIT)?;
    let bytes: Vec<u8> = (0..MAX_ENTRY_SIZE).map(|at| at.to_le_bytes()[0]).collect();
    it.claim(&me).await?;
    let saved = it.save(&me, &bytes, LONG).await?;
    must(saved, "a holder can save an entry of 64 KiB")?;
    let again = it.save(&me, &bytes, LONG).await?;
    must(again, "to save an entry again is no failure")?;
    let entry = it.entry().await?;
    must(
        entry.as_ref().is_some_and(|it| it.sealed == bytes),
        "an entry comes back byte for byte",
    )?;
    must(
        entry.as_ref().is_some_and(|it| it.id == me),
        "the id of an entry is its holder",
    )?;
    must(
        entry.is_some_and(|it| it.expires_in <= LONG && it.expires_in > LONG / 2),
        "an entry lives as long as it was given",
    )?;
    let elsewhere = it.sibling()?.entry().await?;
    must(elsewhere.is_none(), "each key has its own entry")?;
    let claimed = it.claim(&other).await?;
    let found = matches!(claimed, Claimed::Entry(_));
    must(found, "an entry is returned before a fetch is granted")?;
    let seen = Claim {
        seen: Some(me.clone()),
        ..it.request(&other)
    };
    let claimed = store.claim(&seen).await?;
    let rule = "an entry that the caller has seen is not returned again";
    must(claimed == Claimed::Granted, rule)?;
    let entry = it.entry().await?;
    let same = entry.is_some_and(|it| it.id == me);
    must(same, "a lease leaves the entry as it was")?;
    it.save(&other, b"second", SHORT).await?;
    let entry = it.entry().await?;
    // A slow machine may see it expired.
    let last = entry.is_none_or(|it| it.sealed == b"second" && it.expires_in <= SHORT);
    must(last, "the last entry counts, with its own life")?;
    passed(SHORT).await;
    must(it.entry().await?.is_none(), "an entry expires")?;

    it.claim(&me).await?;
    must(it.save(&me, b"", LONG).await?, "an entry may be empty")?;
    let empty = it.entry().await?;
    must(empty.is_none(), "an empty entry is no entry")
}

async fn late_holders<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (late, next) = (Name::random()?, Name::random()?);
    let mut it = Subject::new(store, limits(None, SHORT, SHORT))?;
    it.claim(&late).await?;
    passed(SHORT).await;
    it.limits.lease = LONG;
    it.claim(&next).await?;
    let saved = it.save(&late, b"late", LONG).await?;
    let rule = "a holder that was late does not save under the lease of another";
    must(!saved, rule)?;
    let trace = it.entry().await?;
    must(trace.is_none(), "a refused entry leaves no trace")?;
    it.save(&next, b"next", LONG).await?;
    let saved = it.save(&late, b"late", LONG).await?;
    let rule = "a holder that was late does not overwrite a newer entry";
    must(!saved, rule)?;
    let entry = it.entry().await?;
    let stays = entry.is_some_and(|it| it.sealed == b"next");
    must(stays, "a newer entry stays")
}

async fn places<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (me, other, third) = (Name::random()?, Name::random()?, Name::random()?);
    let a = Subject::new(store, limits(Some(2), LONG, SHORT))?;
    let (b, c) = (a.sibling()?, a.sibling()?);
    a.grants(&me, "a free place is granted").await?;
    a.claim(&me).await?;
    let rule = "a holder has one place, however often it claims";
    b.grants(&other, rule).await?;
    let rule = "all keys of a window share its places";
    let wait = c.wait(&third, rule).await?;
    must(
        wait > LONG / 2 && wait <= LONG + SHORT,
        "a place is free after a lease and a window at the latest",
    )?;
    let elsewhere = Subject::new(store, a.limits)?;
    let rule = "each window has its own places";
    elsewhere.grants(&third, rule).await?;
    c.release(&third, Duration::ZERO).await?;
    let rule = "a holder without a place frees none";
    c.wait(&third, rule).await?;
    a.release(&me, LONG / 3).await?;
    let rule = "a place is free `frees_after` the end of its request, not before";
    let wait = c.wait(&third, rule).await?;
    must(wait > LONG / 6 && wait <= LONG / 3, rule)?;
    b.release(&other, Duration::ZERO).await?;
    let rule = "a place that was not used is free at once";
    c.grants(&third, rule).await?;

    let none = Subject::new(store, limits(Some(0), SHORT, SHORT))?;
    none.wait(&me, "of no places none is granted").await?;

    let it = Subject::new(store, limits(Some(5), LONG, LONG))?;
    let siblings = (0..16).map(|_| it.sibling());
    let siblings = siblings.collect::<Result<Vec<_>, _>>()?;
    let claims = siblings.iter();
    let claims = claims.map(|it| async { it.claim(&Name::random()?).await });
    must(
        granted(claims).await? == 5,
        "of many claims at one instant, as many are granted as there are places",
    )
}

async fn ended_places<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (late, next, third) = (Name::random()?, Name::random()?, Name::random()?);
    let mut a = Subject::new(store, limits(Some(2), SHORT, SHORT))?;
    let (mut b, mut c) = (a.sibling()?, a.sibling()?);
    a.grants(&late, "a place can be short").await?;
    b.limits.lease = LONG;
    b.grants(&next, "a second place is granted").await?;
    passed(SHORT + SHORT).await;
    (a.limits, c.limits) = (limits(Some(1), LONG, SHORT), limits(Some(1), LONG, SHORT));
    let rule = "a place that has ended is no longer its holder's";
    a.wait(&late, rule).await?;
    a.release(&late, LONG).await?;
    b.release(&next, Duration::ZERO).await?;
    let rule = "a place that was not finished ends by itself, and is not extended then";
    c.grants(&third, rule).await?;

    let mut it = Subject::new(store, limits(Some(1), SHORT, MEDIUM))?;
    it.claim(&late).await?;
    it.release(&late, LONG).await?;
    passed(SHORT + MEDIUM).await;
    it.limits.lease = LONG;
    let rule = "a place lasts for `frees_after`, also beyond its lease and window";
    it.wait(&next, rule).await.map(drop)
}

/// One token at one endpoint, on which the rules are tried.
struct Subject<'a, S> {
    store: &'a S,
    key: Name,
    window: Name,
    limits: Limits,
}

impl<S: TokenStore> Subject<'_, S> {
    fn new(store: &S, limits: Limits) -> Result<Subject<'_, S>, Error> {
        Ok(Subject {
            store,
            key: Name::random()?,
            window: Name::random()?,
            limits,
        })
    }

    /// Another token at the same endpoint.
    fn sibling(&self) -> Result<Self, Error> {
        Ok(Self {
            key: Name::random()?,
            window: self.window.clone(),
            ..*self
        })
    }

    fn request(&self, holder: &Name) -> Claim {
        let (key, window) = (self.key.clone(), self.window.clone());
        Claim::new(key, window, holder.clone(), self.limits)
    }

    async fn claim(&self, holder: &Name) -> Result<Claimed, Error> {
        self.store.claim(&self.request(holder)).await
    }

    async fn grants(&self, holder: &Name, rule: &str) -> Result<(), Violation> {
        must(self.claim(holder).await? == Claimed::Granted, rule)
    }

    /// How long the store tells the holder to wait.
    async fn wait(&self, holder: &Name, rule: &str) -> Result<Duration, Violation> {
        match self.claim(holder).await? {
            Claimed::Leased(wait) | Claimed::RateLimited(wait) => Ok(wait),
            _ => must(false, rule).map(|()| Duration::ZERO),
        }
    }

    /// The entry, as a process that has seen none gets it.
    async fn entry(&self) -> Result<Option<StoredEntry>, Error> {
        let mut look = self.request(&Name::random()?);
        look.may_fetch = false;
        Ok(match self.store.claim(&look).await? {
            Claimed::Entry(entry) => Some(entry),
            _ => None,
        })
    }

    async fn release(&self, holder: &Name, frees_after: Duration) -> Result<bool, Error> {
        self.store.finish(&self.end(holder, frees_after)).await
    }

    async fn save(&self, holder: &Name, bytes: &[u8], life: Duration) -> Result<bool, Error> {
        let finish = self.end(holder, Duration::ZERO);
        self.store.finish(&finish.entry(bytes.to_vec(), life)).await
    }

    fn end(&self, holder: &Name, frees_after: Duration) -> Finish {
        let (key, window) = (self.key.clone(), self.window.clone());
        Finish::new(key, window, holder.clone(), frees_after)
    }
}

const fn limits(requests: Option<u32>, lease: Duration, per: Duration) -> Limits {
    Limits {
        lease,
        requests,
        per,
    }
}

fn must(kept: bool, rule: &str) -> Result<(), Violation> {
    let rule = rule.to_owned();
    kept.then_some(()).ok_or(Violation { rule })
}

async fn passed(time: Duration) {
    tokio::time::sleep(time + Duration::from_millis(50)).await;
}

/// Makes all claims at once, on this task. Returns how many were granted.
async fn granted<F>(claims: impl Iterator<Item = F>) -> Result<usize, Error>
where
    F: Future<Output = Result<Claimed, Error>>,
{
    let mut running: Vec<Pin<Box<F>>> = claims.map(Box::pin).collect();
    let (mut count, mut failed) = (0, None);
    poll_fn(|cx| {
        running.retain_mut(|claim| match claim.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(claimed) => {
                match claimed {
                    Ok(claimed) => count += usize::from(claimed == Claimed::Granted),
                    Err(error) => failed = Some(error),
                }
                false
            }
        });
        match running.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    failed.map_or(Ok(count), Err)
}
