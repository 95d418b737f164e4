use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::store::{Holder, LARGEST_ENTRY, Lease, Spent, StoreKey, Terms, TokenStore, key};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Long enough not to end while a busy machine looks elsewhere.
const LONG: Duration = Duration::from_secs(30);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// What a store did that no [`TokenStore`] may do.
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

/// Checks that a store keeps what [`TokenStore`] promises: run it on your own.
///
/// It uses fresh keys and leaves nothing that does not end by itself, so it may
/// share the store with others. It waits for things to end, about two seconds
/// in all; a store on tokio's clock can be checked with that paused.
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
    entries(store).await?;
    leases(store).await?;
    fences(store).await?;
    places(store).await
}

async fn entries<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (a, b, me) = (fresh()?, fresh()?, Holder::random()?);
    must(
        store.load(&a).await?.is_none(),
        "an unknown key has no entry",
    )?;

    let bytes: Vec<u8> = (0..LARGEST_ENTRY).map(|at| at.to_le_bytes()[0]).collect();
    must(
        store.save(&a, &bytes, LONG, &me).await?,
        "an entry of 64 KiB can be saved",
    )?;
    let stored = store.load(&a).await?;
    let same = stored.as_ref().is_some_and(|stored| stored.entry == bytes);
    must(same, "an entry comes back byte for byte")?;
    let left = stored.map(|stored| stored.expires_in).unwrap_or_default();
    must(left <= LONG, "an entry lives no longer than it was given")?;
    must(left > LONG / 2, "an entry lives as long as it was given")?;
    must(
        store.load(&b).await?.is_none(),
        "each key has its own entry",
    )?;

    store.save(&a, b"second", SHORT, &me).await?;
    let stored = store.load(&a).await?;
    let second =
        stored.is_some_and(|stored| stored.entry == b"second" && stored.expires_in <= SHORT);
    must(second, "the last entry counts, with its own life")?;
    tokio::time::sleep(SHORT + MS(50)).await;
    must(
        store.load(&a).await?.is_none(),
        "an entry ends with its life",
    )
}

async fn leases<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (a, b) = (fresh()?, fresh()?);
    let (me, other) = (Holder::random()?, Holder::random()?);
    let held = |lease: Lease| lease == Lease::Held;
    must(
        held(store.acquire(&a, &me, LONG).await?),
        "a free lease can be had",
    )?;
    let busy = match store.acquire(&a, &other, LONG).await? {
        Lease::Busy(left) => left > LONG / 2 && left <= LONG,
        Lease::Held => false,
    };
    must(
        busy,
        "nobody else gets a lease, but is told how long it lasts",
    )?;
    must(
        held(store.acquire(&b, &other, LONG).await?),
        "each key has its own lease",
    )?;
    store.release(&a, &other).await?;
    must(
        !held(store.acquire(&a, &other, LONG).await?),
        "nobody releases another's lease",
    )?;
    must(
        held(store.acquire(&a, &me, SHORT).await?),
        "a holder can take its lease anew",
    )?;
    let left = match store.acquire(&a, &other, LONG).await? {
        Lease::Busy(left) => left,
        Lease::Held => LONG,
    };
    must(left <= SHORT, "a lease taken anew has the new limit")?;
    tokio::time::sleep(SHORT + MS(50)).await;
    must(
        held(store.acquire(&a, &other, LONG).await?),
        "a lease ends by itself",
    )?;
    must(
        !held(store.acquire(&a, &me, LONG).await?),
        "who was late has lost its lease",
    )?;
    store.release(&a, &me).await?;
    must(
        !held(store.acquire(&a, &me, LONG).await?),
        "who was late releases nothing",
    )?;
    store.release(&a, &other).await?;
    must(
        held(store.acquire(&a, &me, LONG).await?),
        "a released lease is free",
    )?;
    store.release(&a, &me).await?;
    store.release(&b, &other).await?;
    store.release(&b, &other).await?;

    for _ in 0..8 {
        let key = fresh()?;
        let asked = (0..16).map(|_| async {
            let holder = Holder::random()?;
            store.acquire(&key, &holder, SHORT).await
        });
        let held = all(asked).await?.into_iter().filter(|lease| held(*lease));
        must(
            held.count() == 1,
            "of many who ask at once, one gets the lease",
        )?;
    }
    Ok(())
}

async fn fences<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let key = fresh()?;
    let (me, late) = (Holder::random()?, Holder::random()?);
    store.acquire(&key, &me, LONG).await?;
    must(store.load(&key).await?.is_none(), "a lease is not an entry")?;
    must(
        store.save(&key, b"mine", LONG, &me).await?,
        "a holder can save",
    )?;
    must(
        !store.save(&key, b"late", LONG, &late).await?,
        "nobody saves under another's lease",
    )?;
    let stored = store.load(&key).await?;
    must(
        stored.is_some_and(|stored| stored.entry == b"mine"),
        "a refused entry leaves no trace",
    )?;
    let lease = store.acquire(&key, &late, LONG).await?;
    must(lease != Lease::Held, "saving does not end a lease")?;
    store.release(&key, &me).await?;
    let stored = store.load(&key).await?;
    must(
        stored.is_some(),
        "the end of a lease is not the end of the entry",
    )?;
    must(
        store.save(&key, b"free", SHORT, &late).await?,
        "without a lease, anybody can save",
    )
}

async fn places<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (a, b, me) = (fresh()?, fresh()?, Holder::random()?);
    let terms = Terms::new(2, SHORT, LONG);
    let granted = |spent: Spent| spent == Spent::Granted;
    must(
        granted(store.spend(&a, &me, terms).await?),
        "a free place can be had",
    )?;
    must(
        granted(store.spend(&a, &me, terms).await?),
        "a ticket keeps its place",
    )?;
    let second = Holder::random()?;
    must(
        granted(store.spend(&a, &second, terms).await?),
        "a ticket takes one place only",
    )?;
    let third = Holder::random()?;
    let wait = match store.spend(&a, &third, terms).await? {
        Spent::Wait(wait) => wait,
        Spent::Granted => Duration::ZERO,
    };
    must(
        wait > LONG / 2,
        "there are no more places than the terms say",
    )?;
    must(
        wait <= LONG + SHORT,
        "a place is free after `out` and `per` at the latest",
    )?;
    must(
        granted(store.spend(&b, &third, terms).await?),
        "each key has its own places",
    )?;
    store.settle(&a, &third, SHORT).await?;
    must(
        !granted(store.spend(&a, &third, terms).await?),
        "settling nothing frees nothing",
    )?;
    store.settle(&a, &me, SHORT).await?;
    let wait = match store.spend(&a, &third, terms).await? {
        Spent::Wait(wait) => wait,
        Spent::Granted => LONG,
    };
    must(
        wait <= SHORT && !wait.is_zero(),
        "a settled place is free after `per`, not before",
    )?;
    tokio::time::sleep(SHORT + MS(50)).await;
    must(
        granted(store.spend(&a, &third, terms).await?),
        "a place becomes free",
    )?;
    let none = Terms::new(0, SHORT, SHORT);
    let key = fresh()?;
    must(
        !granted(store.spend(&key, &me, none).await?),
        "of no places none can be had",
    )?;

    let key = fresh()?;
    let terms = Terms::new(5, SHORT, SHORT);
    let asked = (0..16).map(|_| async {
        let ticket = Holder::random()?;
        store.spend(&key, &ticket, terms).await
    });
    let held = all(asked)
        .await?
        .into_iter()
        .filter(|spent| granted(*spent));
    must(
        held.count() == 5,
        "of many who ask at once, as many get a place as there are",
    )?;
    tokio::time::sleep(SHORT + SHORT + MS(50)).await;
    let again = store.spend(&key, &me, terms).await?;
    must(
        granted(again),
        "a place that nobody settles becomes free by itself",
    )
}

fn must(kept: bool, rule: &str) -> Result<(), Violation> {
    if kept {
        return Ok(());
    }
    let rule = rule.to_owned();
    Err(Violation { rule })
}

fn fresh() -> Result<StoreKey, Error> {
    Ok(StoreKey::digest_of(&key::random::<16>()?))
}

/// All at once, on this task.
async fn all<T, F>(futures: impl Iterator<Item = F>) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|cx| {
        let mut failed = None;
        running.retain_mut(|future| match future.as_mut().poll(cx) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(Ok(output)) => {
                done.push(output);
                false
            }
            std::task::Poll::Ready(Err(error)) => {
                failed = Some(error);
                false
            }
        });
        match failed {
            Some(error) => std::task::Poll::Ready(Err(error)),
            None if running.is_empty() => std::task::Poll::Ready(Ok(())),
            None => std::task::Poll::Pending,
        }
    })
    .await?;
    Ok(done)
}
