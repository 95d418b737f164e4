//! The rules of a store, one after the other.

use std::time::Duration;

use super::subject::Subject;
use super::{Violation, granted, must};
use crate::fleet::{Claimed, Limits, MAX_ENTRY_SIZE, Name, TokenStore};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Does not end while a busy machine does something else.
const LONG: Duration = Duration::from_secs(30);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

const UNLIMITED: Limits = Limits {
    lease: LONG,
    requests: None,
    per: SHORT,
};

pub(super) async fn leases<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (me, other) = (Name::random()?, Name::random()?);
    let mut it = Subject::new(store, UNLIMITED)?;
    must(it.entry().await?.is_none(), "an unknown key has no entry")?;
    must(it.is_granted(&me).await?, "a free lease is granted")?;
    must(
        it.is_granted(&me).await?,
        "a repeated claim is granted again",
    )?;
    let left = it.wait(&other).await?;
    must(
        left.is_some_and(|left| left > LONG / 2 && left <= LONG),
        "a lease is granted to one holder, and others learn how long it lasts",
    )?;
    must(
        it.sibling()?.is_granted(&other).await?,
        "each key has its own lease",
    )?;
    must(
        !it.release(&other, SHORT).await? && !it.is_granted(&other).await?,
        "a holder cannot give up the lease of another",
    )?;
    must(it.release(&me, SHORT).await?, "a holder gives up its lease")?;
    let mut look = it.request(&other);
    look.may_fetch = false;
    must(
        store.claim(&look).await? == Claimed::RateLimited(Duration::ZERO),
        "a caller that may not fetch is granted nothing",
    )?;
    must(it.is_granted(&other).await?, "a lease given up is free")?;
    it.release(&other, SHORT).await?;

    it.limits.lease = SHORT;
    must(it.is_granted(&me).await?, "a lease can be short")?;
    tokio::time::sleep(SHORT + MS(50)).await;
    must(it.is_granted(&other).await?, "a lease ends by itself")?;
    must(
        !it.release(&me, SHORT).await? && !it.is_granted(&me).await?,
        "a holder that was late has lost its lease",
    )?;
    it.release(&other, SHORT).await?;

    it.limits.lease = LONG;
    it.claim(&me).await?;
    it.limits.lease = SHORT;
    must(
        it.is_granted(&other).await?,
        "a lease that lasts longer than any is overwritten",
    )?;

    for _ in 0..8 {
        let it = Subject::new(store, UNLIMITED)?;
        let claims = (0..16).map(|_| async { it.is_granted(&Name::random()?).await });
        must(
            granted(claims).await? == 1,
            "of many claims at one instant, one is granted",
        )?;
    }
    Ok(())
}

pub(super) async fn entries<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (me, other) = (Name::random()?, Name::random()?);
    let it = Subject::new(store, UNLIMITED)?;
    let bytes: Vec<u8> = (0..MAX_ENTRY_SIZE).map(|at| at.to_le_bytes()[0]).collect();
    it.claim(&me).await?;
    must(
        it.save(&me, &bytes, LONG).await?,
        "a holder can save an entry of 64 KiB",
    )?;
    must(
        it.save(&me, &bytes, LONG).await?,
        "to save an entry again is no failure",
    )?;
    let entry = it.entry().await?;
    must(
        entry.as_ref().is_some_and(|entry| entry.sealed == bytes),
        "an entry comes back byte for byte",
    )?;
    must(
        entry.as_ref().is_some_and(|entry| entry.id == me),
        "the id of an entry is its holder",
    )?;
    let left = entry.map(|entry| entry.expires_in).unwrap_or_default();
    must(
        left <= LONG && left > LONG / 2,
        "an entry lives as long as it was given",
    )?;
    must(
        it.sibling()?.entry().await?.is_none(),
        "each key has its own entry",
    )?;
    must(
        matches!(it.claim(&other).await?, Claimed::Entry(_)),
        "an entry is returned before a fetch is granted",
    )?;
    let mut seen = it.request(&other);
    seen.seen = Some(me.clone());
    must(
        store.claim(&seen).await? == Claimed::Granted,
        "an entry that the caller has seen is not returned again",
    )?;
    let entry = it.entry().await?;
    must(
        entry.is_some_and(|entry| entry.id == me),
        "a lease leaves the entry as it was",
    )?;
    it.save(&other, b"second", SHORT).await?;
    let entry = it.entry().await?;
    must(
        entry.is_some_and(|entry| entry.sealed == b"second" && entry.expires_in <= SHORT),
        "the last entry counts, with its own life",
    )?;
    tokio::time::sleep(SHORT + MS(50)).await;
    must(it.entry().await?.is_none(), "an entry ends with its life")
}

pub(super) async fn fences<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (late, next) = (Name::random()?, Name::random()?);
    let mut it = Subject::new(store, UNLIMITED)?;
    it.limits.lease = SHORT;
    it.claim(&late).await?;
    tokio::time::sleep(SHORT + MS(50)).await;
    it.claim(&next).await?;
    must(
        !it.save(&late, b"late", LONG).await?,
        "a holder that was late does not save under the lease of another",
    )?;
    must(
        it.entry().await?.is_none(),
        "a refused entry leaves no trace",
    )?;
    it.save(&next, b"next", LONG).await?;
    must(
        !it.save(&late, b"late", LONG).await?,
        "a holder that was late does not overwrite a newer entry",
    )?;
    let entry = it.entry().await?;
    must(
        entry.is_some_and(|entry| entry.sealed == b"next"),
        "a newer entry stays",
    )
}

pub(super) async fn places<S: TokenStore>(store: &S) -> Result<(), Violation> {
    let (me, other) = (Name::random()?, Name::random()?);
    let limits = |requests, lease, per| Limits {
        lease,
        requests: Some(requests),
        per,
    };
    let a = Subject::new(store, limits(2, LONG, SHORT))?;
    let (b, c) = (a.sibling()?, a.sibling()?);
    must(a.is_granted(&me).await?, "a free place is granted")?;
    a.claim(&me).await?;
    must(
        b.is_granted(&other).await?,
        "a holder has one place, however often it claims",
    )?;
    let third = Name::random()?;
    let wait = c.wait(&third).await?;
    must(
        wait.is_some_and(|wait| wait > LONG / 2),
        "all keys of a window share its places",
    )?;
    must(
        wait.is_some_and(|wait| wait <= LONG + SHORT),
        "a place is free after a lease and a window at the latest",
    )?;
    let elsewhere = Subject::new(store, a.limits)?;
    must(
        elsewhere.is_granted(&third).await?,
        "each window has its own places",
    )?;
    c.release(&third, Duration::ZERO).await?;
    must(
        !c.is_granted(&third).await?,
        "a holder without a place frees none",
    )?;
    a.release(&me, SHORT).await?;
    let wait = c.wait(&third).await?;
    must(
        wait.is_some_and(|wait| wait <= SHORT && !wait.is_zero()),
        "a place is free `frees_after` the end of its request, not before",
    )?;
    tokio::time::sleep(SHORT + MS(50)).await;
    must(c.is_granted(&third).await?, "a place becomes free")?;
    c.release(&third, Duration::ZERO).await?;
    must(
        a.is_granted(&me).await?,
        "a place that was not used is free at once",
    )?;

    let none = Subject::new(store, limits(0, SHORT, SHORT))?;
    must(!none.is_granted(&me).await?, "of no places none is granted")?;

    let it = Subject::new(store, limits(5, SHORT, SHORT))?;
    let siblings = (0..16)
        .map(|_| it.sibling())
        .collect::<Result<Vec<_>, _>>()?;
    let claims = siblings
        .iter()
        .map(|it| async { it.is_granted(&Name::random()?).await });
    must(
        granted(claims).await? == 5,
        "of many claims at one instant, as many are granted as there are places",
    )?;
    tokio::time::sleep(SHORT + SHORT + MS(50)).await;
    must(
        it.is_granted(&me).await?,
        "a place that is never finished becomes free by itself",
    )
}
