//! The rules, in words and in deeds.

use std::time::Duration;

use super::{Violation, all, fresh, must};
use crate::fleet::{Holder, LARGEST_ENTRY, Lease, Spent, Terms, TokenStore};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Long enough not to end while a busy machine looks elsewhere.
const LONG: Duration = Duration::from_secs(30);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

pub(super) async fn entries<S: TokenStore>(store: &S) -> Result<(), Violation> {
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

pub(super) async fn leases<S: TokenStore>(store: &S) -> Result<(), Violation> {
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

pub(super) async fn fences<S: TokenStore>(store: &S) -> Result<(), Violation> {
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

pub(super) async fn places<S: TokenStore>(store: &S) -> Result<(), Violation> {
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
    let (key, terms) = (fresh()?, Terms::new(1, LONG, LONG));
    store.spend(&key, &me, terms).await?;
    store.settle(&key, &me, Duration::ZERO).await?;
    tokio::time::sleep(MS(50)).await;
    must(
        granted(store.spend(&key, &third, terms).await?),
        "a place given back is free at once",
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
