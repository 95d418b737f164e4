//! The rules of a store, as steps that anybody can run against one.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use officernd_auth::{Error, ErrorKind};

use self::Action::{Claims, ClaimsAfter, Finishes, Looks, Saves, Waits};
use self::Answer::{Entry, Granted, Held, NoEntry, Wait};
use crate::store::{Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, TokenStore};

/// Does not end while a busy machine does something else.
const LONG: Duration = Duration::from_secs(30);
/// Long enough to finish in, and short enough to wait for.
const MEDIUM: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(300);
const ZERO: Duration = Duration::ZERO;
const NO_LIMIT: Limits = Limits::new(LONG, None, SHORT);
const BRIEF: Limits = Limits::new(SHORT, None, SHORT);
/// An answer whose wait is of no interest.
const MUST_WAIT: Answer = Wait(ZERO, LONG.saturating_add(LONG));
const LARGEST: &[u8] = &[7; MAX_ENTRY_SIZE];
const TOO_LARGE: &[u8] = &[7; MAX_ENTRY_SIZE + 1];
const BINARY: &[u8] = b"\0 \r\n \xff";

/// Checks that a store keeps the rules of [`TokenStore`].
///
/// Uses new keys and leaves nothing that does not expire, so it can run on a store that others use. Waits for
/// content to expire, about six seconds in all; a store on tokio's clock can be checked with that paused.
///
/// # Errors
///
/// [`ErrorKind::Store`] with the first rule that the store broke, or the error of an operation.
///
/// ```
/// use officernd_auth_store::testing::{MemoryStore, check_store};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// // In place of this: your own.
/// let store = MemoryStore::new();
/// check_store(&store).await?;
/// # Ok(())
/// # }
/// ```
pub async fn check_store<S: TokenStore>(store: &S) -> Result<(), Error> {
    for rules in [
        LEASES,
        RENEWALS,
        ENTRIES,
        LATE_HOLDERS,
        PLACES,
        ENDED_PLACES,
        LATE_PLACES,
        LATE_ANSWERS,
    ] {
        follow(store, rules).await?;
    }
    for _ in 0..8 {
        let rule = "of many claims at one instant, one is granted";
        must(at_once(store, NO_LIMIT, true).await? == 1, rule)?;
    }
    let rule = "of many claims at one instant, as many are granted as there are places";
    let five = Limits::new(LONG, Some(5), LONG);
    must(at_once(store, five, false).await? == 5, rule)
}

/// What a holder does, and what the store must answer. The first text is the rule, the others name a key and
/// a holder. All keys but `elsewhere` have one window.
type Step = (&'static str, &'static str, &'static str, Action, Answer);

#[derive(Clone, Copy)]
enum Action {
    Claims(Limits),
    /// Has seen the entry of this holder.
    ClaimsAfter(&'static str, Limits),
    /// Claims, but may not fetch.
    Looks,
    Finishes(Duration),
    Saves(&'static [u8], Duration),
    Waits(Duration),
}

#[derive(Clone, Copy)]
enum Answer {
    Granted,
    /// Is told to wait for more than the one and at most the other.
    Wait(Duration, Duration),
    /// The holder that saved it, its bytes, and its life.
    Entry(&'static str, &'static [u8], Duration),
    NoEntry,
    /// Whether the holder had the lease, or has saved the entry before.
    Held(bool),
}

#[rustfmt::skip]
const LEASES: &[Step] = &[
    ("an unknown key has no entry", "a", "me", Looks, NoEntry),
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a repeated claim is granted again", "a", "me", Claims(NO_LIMIT), Granted),
    ("a lease is granted to one holder, and others learn how long it lasts",
        "a", "other", Claims(NO_LIMIT), Wait(LONG.saturating_sub(MEDIUM), LONG)),
    ("each key has its own lease", "b", "other", Claims(NO_LIMIT), Granted),
    ("a holder cannot give up the lease of another", "a", "other", Finishes(SHORT), Held(false)),
    ("a lease stays when another holder finishes", "a", "other", Claims(NO_LIMIT), MUST_WAIT),
    ("a holder gives up its lease", "a", "me", Finishes(SHORT), Held(true)),
    ("a caller that may not fetch is granted nothing", "a", "other", Looks, Wait(ZERO, ZERO)),
    ("a lease that was given up is free", "a", "other", Claims(NO_LIMIT), Granted),
    ("a holder gives up its lease", "a", "other", Finishes(SHORT), Held(true)),
    ("a lease can be short", "a", "me", Claims(BRIEF), Granted),
    ("time passes", "a", "me", Waits(SHORT), Granted),
    ("a lease ends by itself", "a", "other", Claims(NO_LIMIT), Granted),
    ("a holder that was late has lost its lease", "a", "me", Finishes(SHORT), Held(false)),
    ("a holder that was late is granted nothing", "a", "me", Claims(NO_LIMIT), MUST_WAIT),
    ("a lease that lasts longer than any counts as absent", "a", "me", Claims(BRIEF), Granted),
];

#[rustfmt::skip]
const RENEWALS: &[Step] = &[
    ("a place can be short", "a", "me", Claims(SHORT_PLACE), Granted),
    ("a repeated claim is granted again", "a", "me", Claims(ONE), Granted),
    ("a repeated claim renews the lease",
        "a", "other", Claims(ONE), Wait(LONG.saturating_sub(MEDIUM), LONG)),
    ("a repeated claim renews the place",
        "b", "other", Claims(ONE), Wait(LONG.saturating_sub(MEDIUM), LONG.saturating_add(SHORT))),
];

#[rustfmt::skip]
const ENTRIES: &[Step] = &[
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a holder can save 64 KiB", "a", "me", Saves(LARGEST, LONG), Held(true)),
    ("to save an entry again is no failure", "a", "me", Saves(LARGEST, LONG), Held(true)),
    ("an entry comes back byte for byte", "a", "other", Looks, Entry("me", LARGEST, LONG)),
    ("each key has its own entry", "b", "other", Looks, NoEntry),
    ("an entry is returned before a fetch is granted",
        "a", "other", Claims(NO_LIMIT), Entry("me", LARGEST, LONG)),
    ("an entry that the caller has seen is not returned again",
        "a", "other", ClaimsAfter("me", NO_LIMIT), Granted),
    ("a lease leaves the entry as it was", "a", "me", Looks, Entry("me", LARGEST, LONG)),
    ("a holder gives up its lease", "a", "other", Finishes(ZERO), Held(true)),
    ("a lease that is given up without an entry leaves the one before",
        "a", "me", Looks, Entry("me", LARGEST, LONG)),
    ("an entry that the caller has seen is not returned again",
        "a", "other", ClaimsAfter("me", NO_LIMIT), Granted),
    ("an entry replaces another", "a", "other", Saves(BINARY, MEDIUM), Held(true)),
    ("the last entry counts", "a", "me", Looks, Entry("other", BINARY, MEDIUM)),
    ("time passes", "a", "me", Waits(MEDIUM), Granted),
    ("an entry expires", "a", "me", Looks, NoEntry),
    ("an entry that has expired does not count as saved",
        "a", "other", Saves(BINARY, MEDIUM), Held(false)),
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a holder gives up its lease", "a", "me", Saves(b"", LONG), Held(true)),
    ("an entry without bytes is none", "a", "me", Looks, NoEntry),
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a holder gives up its lease", "a", "me", Saves(TOO_LARGE, LONG), Held(true)),
    ("an entry of more than 64 KiB is none", "a", "other", Looks, NoEntry),
];

#[rustfmt::skip]
const LATE_HOLDERS: &[Step] = &[
    ("a lease can be short", "a", "late", Claims(BRIEF), Granted),
    ("time passes", "a", "late", Waits(SHORT), Granted),
    ("a lease ends by itself", "a", "next", Claims(NO_LIMIT), Granted),
    ("a holder that was late does not save under the lease of another",
        "a", "late", Saves(b"late", LONG), Held(false)),
    ("a refused entry leaves no trace", "a", "late", Looks, NoEntry),
    ("a holder saves its entry", "a", "next", Saves(b"next", LONG), Held(true)),
    ("a holder that was late does not overwrite a newer entry",
        "a", "late", Saves(b"late", LONG), Held(false)),
    ("a newer entry stays", "a", "late", Looks, Entry("next", b"next", LONG)),
];

const TWO: Limits = Limits::new(LONG, Some(2), SHORT);

#[rustfmt::skip]
const PLACES: &[Step] = &[
    ("a claim without a limit is granted", "unlimited", "me", Claims(NO_LIMIT), Granted),
    ("a claim without a limit takes no place", "b", "other", Claims(ONE), Granted),
    ("a holder gives up its lease", "b", "other", Finishes(ZERO), Held(true)),
    ("a free place is granted", "a", "me", Claims(TWO), Granted),
    ("a repeated claim is granted again", "a", "me", Claims(TWO), Granted),
    ("a holder has one place, however often it claims", "b", "other", Claims(TWO), Granted),
    ("all keys share a window; a place is free after a lease and a window at the latest",
        "c", "third", Claims(TWO), Wait(LONG.saturating_sub(MEDIUM), LONG.saturating_add(SHORT))),
    ("each window has its own places", "elsewhere", "third", Claims(TWO), Granted),
    ("of no places none is granted",
        "none", "third", Claims(Limits::new(LONG, Some(0), SHORT)), MUST_WAIT),
    ("a holder without a lease gives up none", "c", "third", Finishes(ZERO), Held(false)),
    ("a holder without a place frees none", "c", "third", Claims(TWO), MUST_WAIT),
    ("a holder gives up its lease", "a", "me", Finishes(MEDIUM), Held(true)),
    ("a place is free `frees_after` the end of its request", "c", "third", Claims(TWO), Wait(ZERO, MEDIUM)),
    ("a holder gives up its lease", "b", "other", Finishes(ZERO), Held(true)),
    ("a place that was not used is free at once", "c", "third", Claims(TWO), Granted),
    ("a place is not free before its time", "d", "fourth", Claims(TWO), Wait(ZERO, MEDIUM)),
    ("time passes", "a", "me", Waits(MEDIUM), Granted),
    ("a place becomes free", "d", "fourth", Claims(TWO), Granted),
];

const ONE: Limits = Limits::new(LONG, Some(1), SHORT);
const SHORT_PLACE: Limits = Limits::new(SHORT, Some(1), SHORT);

#[rustfmt::skip]
const ENDED_PLACES: &[Step] = &[
    ("a place can be short", "a", "late", Claims(Limits::new(SHORT, Some(2), SHORT)), Granted),
    ("a second place is granted", "b", "next", Claims(TWO), Granted),
    ("time passes", "a", "late", Waits(SHORT.saturating_add(SHORT)), Granted),
    ("a place that has ended is no longer its holder's", "a", "late", Claims(ONE), MUST_WAIT),
    ("a holder that was late has lost its lease", "a", "late", Finishes(LONG), Held(false)),
    ("a holder gives up its lease", "b", "next", Finishes(ZERO), Held(true)),
    ("a place ends by itself, and is not extended then", "c", "third", Claims(ONE), Granted),
];

#[rustfmt::skip]
const LATE_PLACES: &[Step] = &[
    ("a free place is granted", "a", "me", Claims(Limits::new(LONG, Some(1), LONG)), Granted),
    ("a place that ends later than any request can is shortened",
        "b", "next", Claims(SHORT_PLACE), Wait(ZERO, SHORT.saturating_add(SHORT))),
    ("time passes", "a", "me", Waits(SHORT.saturating_add(SHORT)), Granted),
    ("a place that was shortened ends then", "b", "next", Claims(SHORT_PLACE), Granted),
];

#[rustfmt::skip]
const LATE_ANSWERS: &[Step] = &[
    ("a free place is granted", "a", "late", Claims(Limits::new(SHORT, Some(1), MEDIUM)), Granted),
    ("time passes", "a", "late", Waits(SHORT), Granted),
    ("a holder that was late has lost its lease", "a", "late", Finishes(LONG), Held(false)),
    ("time passes", "a", "late", Waits(MEDIUM), Granted),
    ("a place lasts for `frees_after`, also beyond its lease and window",
        "b", "next", Claims(ONE), MUST_WAIT),
];

/// Follows the steps with names that nothing else has.
async fn follow<S: TokenStore>(store: &S, steps: &[Step]) -> Result<(), Error> {
    let run = Name::random()?;
    let name = |what: &str| Name::digest_of(format!("{run} {what}").as_bytes());
    for &(rule, key, holder, action, expected) in steps {
        let window = name(if key == "elsewhere" {
            "another"
        } else {
            "window"
        });
        let (key, holder) = (name(key), name(holder));
        let finish =
            |frees_after| Finish::new(key.clone(), window.clone(), holder.clone(), frees_after);
        let mut claim = Claim::new(key.clone(), window.clone(), holder.clone(), NO_LIMIT);
        match action {
            Claims(limits) => claim.limits = limits,
            ClaimsAfter(seen, limits) => (claim.limits, claim.seen) = (limits, Some(name(seen))),
            Looks => claim.may_fetch = false,
            Finishes(frees_after) => {
                let held = store.finish(&finish(frees_after)).await?;
                must(matches!(expected, Held(expected) if expected == held), rule)?;
                continue;
            }
            Saves(bytes, life) => {
                let finish = finish(ZERO).entry(bytes.to_vec(), life);
                let held = store.finish(&finish).await?;
                must(matches!(expected, Held(expected) if expected == held), rule)?;
                continue;
            }
            Waits(time) => {
                tokio::time::sleep(time + Duration::from_millis(50)).await;
                continue;
            }
        }
        let kept = match (expected, store.claim(&claim).await?) {
            (Granted, Claimed::Granted) => true,
            (Wait(from, to), Claimed::Leased(wait) | Claimed::RateLimited(wait)) => {
                wait <= to && (wait > from || to.is_zero())
            }
            (Entry(id, sealed, life), Claimed::Entry(entry)) => {
                entry.id == name(id) && entry.sealed == sealed && entry.expires_in <= life
            }
            (NoEntry, claimed) => !matches!(claimed, Claimed::Entry(_)),
            _ => false,
        };
        must(kept, rule)?;
    }
    Ok(())
}

/// Makes 16 claims at once, on this task, for one key or for as many keys. Returns how many were granted.
async fn at_once<S: TokenStore>(store: &S, limits: Limits, one_key: bool) -> Result<usize, Error> {
    let (key, window) = (Name::random()?, Name::random()?);
    let mut claims = Vec::new();
    for _ in 0..16 {
        let key = if one_key {
            key.clone()
        } else {
            Name::random()?
        };
        claims.push(Claim::new(key, window.clone(), Name::random()?, limits));
    }
    let claims = claims.iter().map(|claim| Box::pin(store.claim(claim)));
    let mut running: Vec<_> = claims.collect();
    let (mut count, mut failed) = (0, None);
    poll_fn(|cx| {
        running.retain_mut(|claim| match claim.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(claimed)) => {
                count += usize::from(claimed == Claimed::Granted);
                false
            }
            Poll::Ready(Err(error)) => {
                failed = Some(error);
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

fn must(kept: bool, rule: &str) -> Result<(), Error> {
    match kept {
        true => Ok(()),
        false => {
            let message = format!("the store breaks a rule: {rule}");
            Err(Error::new(ErrorKind::Store, message))
        }
    }
}
