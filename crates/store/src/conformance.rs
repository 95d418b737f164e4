//! The rules of a store, as steps to run against it.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use officernd_auth::{Error, ErrorKind};

use self::Action::{Claims, ClaimsAfter, Finishes, Looks, Saves, Waits};
use self::Answer::{Entry, Granted, Held, NoEntry, Wait};
use crate::store::{Claim, Claimed, Finish, Limits, MAX_ENTRY_SIZE, Name, TokenStore};

/// A time that does not pass during a check, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);
/// A time that is long enough for a few operations, and short enough to wait for.
const MEDIUM: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(300);
const ZERO: Duration = Duration::ZERO;
const NO_LIMIT: Limits = Limits::new(LONG, None, SHORT);
const BRIEF: Limits = Limits::new(SHORT, None, SHORT);
/// A wait of any length.
const MUST_WAIT: Answer = Wait(ZERO, LONG.saturating_add(LONG));
const LARGEST: &[u8] = &[7; MAX_ENTRY_SIZE];
const TOO_LARGE: &[u8] = &[7; MAX_ENTRY_SIZE + 1];
const BINARY: &[u8] = b"\0 \r\n \xff";

/// Checks that a store follows the rules of [`TokenStore`].
///
/// Uses new keys, and everything that it writes expires, so it can run on a store in use. Waits about 6 s for
/// content to expire. Pause tokio's clock if the store uses it.
///
/// # Errors
///
/// Returns [`ErrorKind::Store`] with the first rule that the store broke, or the error of an operation.
///
/// ```
/// use officernd_auth_store::testing::{MemoryStore, check_store};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), officernd_auth::Error> {
/// // Use your own store instead.
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
        SLOTS,
        ENDED_SLOTS,
        LATE_SLOTS,
        LATE_ANSWERS,
    ] {
        follow(store, rules).await?;
    }
    for _ in 0..8 {
        let rule = "of concurrent claims for one key, one is granted";
        must(at_once(store, NO_LIMIT, true).await? == 1, rule)?;
    }
    let rule = "of concurrent claims, as many are granted as there are slots";
    let five = Limits::new(LONG, Some(5), LONG);
    must(at_once(store, five, false).await? == 5, rule)
}

/// The rule, the key, the holder, what the holder does, and the expected result. All keys except `elsewhere`
/// share one window.
type Step = (&'static str, &'static str, &'static str, Action, Answer);

#[derive(Clone, Copy)]
enum Action {
    Claims(Limits),
    /// Claims, after the entry of this holder was seen.
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
    /// A wait longer than the first and at most the second duration.
    Wait(Duration, Duration),
    /// An entry: the holder that saved it, its bytes, and its longest lifetime.
    Entry(&'static str, &'static [u8], Duration),
    NoEntry,
    /// The result of `finish`.
    Held(bool),
}

#[rustfmt::skip]
const LEASES: &[Step] = &[
    ("an unknown key has no entry", "a", "me", Looks, NoEntry),
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a repeated claim is granted again", "a", "me", Claims(NO_LIMIT), Granted),
    ("a lease is granted to one holder, and others get its remaining time",
        "a", "other", Claims(NO_LIMIT), Wait(LONG.saturating_sub(MEDIUM), LONG)),
    ("each key has its own lease", "b", "other", Claims(NO_LIMIT), Granted),
    ("a holder cannot release the lease of another", "a", "other", Finishes(SHORT), Held(false)),
    ("a lease stays when another holder finishes", "a", "other", Claims(NO_LIMIT), MUST_WAIT),
    ("a holder releases its lease", "a", "me", Finishes(SHORT), Held(true)),
    ("a caller that may not fetch is granted nothing", "a", "other", Looks, Wait(ZERO, ZERO)),
    ("a released lease is free", "a", "other", Claims(NO_LIMIT), Granted),
    ("a holder releases its lease", "a", "other", Finishes(SHORT), Held(true)),
    ("a lease can be short", "a", "me", Claims(BRIEF), Granted),
    ("time passes", "a", "me", Waits(SHORT), Granted),
    ("a lease expires", "a", "other", Claims(NO_LIMIT), Granted),
    ("a late holder has lost its lease", "a", "me", Finishes(SHORT), Held(false)),
    ("a late holder is granted nothing", "a", "me", Claims(NO_LIMIT), MUST_WAIT),
    ("a lease longer than any lease is ignored", "a", "me", Claims(BRIEF), Granted),
];

#[rustfmt::skip]
const RENEWALS: &[Step] = &[
    ("a slot can be short", "a", "me", Claims(SHORT_SLOT), Granted),
    ("a repeated claim is granted again", "a", "me", Claims(ONE), Granted),
    ("a repeated claim renews the lease",
        "a", "other", Claims(ONE), Wait(LONG.saturating_sub(MEDIUM), LONG)),
    ("a repeated claim renews the slot",
        "b", "other", Claims(ONE), Wait(LONG.saturating_sub(MEDIUM), LONG.saturating_add(SHORT))),
];

#[rustfmt::skip]
const ENTRIES: &[Step] = &[
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a holder can save 64 KiB", "a", "me", Saves(LARGEST, LONG), Held(true)),
    ("saving an entry again succeeds", "a", "me", Saves(LARGEST, LONG), Held(true)),
    ("an entry is returned byte for byte", "a", "other", Looks, Entry("me", LARGEST, LONG)),
    ("each key has its own entry", "b", "other", Looks, NoEntry),
    ("an entry is returned before a fetch is granted",
        "a", "other", Claims(NO_LIMIT), Entry("me", LARGEST, LONG)),
    ("an entry that the caller has seen is not returned again",
        "a", "other", ClaimsAfter("me", NO_LIMIT), Granted),
    ("a lease does not change the entry", "a", "me", Looks, Entry("me", LARGEST, LONG)),
    ("a holder releases its lease", "a", "other", Finishes(ZERO), Held(true)),
    ("a lease released without an entry does not change the entry",
        "a", "me", Looks, Entry("me", LARGEST, LONG)),
    ("an entry that the caller has seen is not returned again",
        "a", "other", ClaimsAfter("me", NO_LIMIT), Granted),
    ("an entry replaces another", "a", "other", Saves(BINARY, MEDIUM), Held(true)),
    ("the last entry is returned", "a", "me", Looks, Entry("other", BINARY, MEDIUM)),
    ("time passes", "a", "me", Waits(MEDIUM), Granted),
    ("an entry expires", "a", "me", Looks, NoEntry),
    ("an entry that has expired does not count as saved",
        "a", "other", Saves(BINARY, MEDIUM), Held(false)),
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a holder releases its lease", "a", "me", Saves(b"", LONG), Held(true)),
    ("an entry without bytes is not saved", "a", "me", Looks, NoEntry),
    ("a free lease is granted", "a", "me", Claims(NO_LIMIT), Granted),
    ("a holder releases its lease", "a", "me", Saves(TOO_LARGE, LONG), Held(true)),
    ("an entry larger than 64 KiB is not returned", "a", "other", Looks, NoEntry),
];

#[rustfmt::skip]
const LATE_HOLDERS: &[Step] = &[
    ("a lease can be short", "a", "late", Claims(BRIEF), Granted),
    ("time passes", "a", "late", Waits(SHORT), Granted),
    ("a lease expires", "a", "next", Claims(NO_LIMIT), Granted),
    ("a late holder does not save under the lease of another",
        "a", "late", Saves(b"late", LONG), Held(false)),
    ("a refused entry leaves no trace", "a", "late", Looks, NoEntry),
    ("a holder saves its entry", "a", "next", Saves(b"next", LONG), Held(true)),
    ("a late holder does not overwrite a newer entry",
        "a", "late", Saves(b"late", LONG), Held(false)),
    ("the newer entry is returned", "a", "late", Looks, Entry("next", b"next", LONG)),
];

const TWO: Limits = Limits::new(LONG, Some(2), SHORT);

#[rustfmt::skip]
const SLOTS: &[Step] = &[
    ("a claim without a limit is granted", "unlimited", "me", Claims(NO_LIMIT), Granted),
    ("a claim without a limit takes no slot", "b", "other", Claims(ONE), Granted),
    ("a holder releases its lease", "b", "other", Finishes(ZERO), Held(true)),
    ("a free slot is granted", "a", "me", Claims(TWO), Granted),
    ("a repeated claim is granted again", "a", "me", Claims(TWO), Granted),
    ("a holder has one slot, however often it claims", "b", "other", Claims(TWO), Granted),
    ("all keys share a window; a slot is free after a lease and a window at the latest",
        "c", "third", Claims(TWO), Wait(LONG.saturating_sub(MEDIUM), LONG.saturating_add(SHORT))),
    ("each window has its own slots", "elsewhere", "third", Claims(TWO), Granted),
    ("with a limit of zero, nothing is granted",
        "none", "third", Claims(Limits::new(LONG, Some(0), SHORT)), MUST_WAIT),
    ("a holder without a lease releases none", "c", "third", Finishes(ZERO), Held(false)),
    ("a holder without a slot frees none", "c", "third", Claims(TWO), MUST_WAIT),
    ("a holder releases its lease", "a", "me", Finishes(MEDIUM), Held(true)),
    ("a slot is free `frees_after` the end of its request", "c", "third", Claims(TWO), Wait(ZERO, MEDIUM)),
    ("a holder releases its lease", "b", "other", Finishes(ZERO), Held(true)),
    ("an unused slot is free at once", "c", "third", Claims(TWO), Granted),
    ("a slot is not free before its time", "d", "fourth", Claims(TWO), Wait(ZERO, MEDIUM)),
    ("time passes", "a", "me", Waits(MEDIUM), Granted),
    ("a slot becomes free", "d", "fourth", Claims(TWO), Granted),
];

const ONE: Limits = Limits::new(LONG, Some(1), SHORT);
const SHORT_SLOT: Limits = Limits::new(SHORT, Some(1), SHORT);

#[rustfmt::skip]
const ENDED_SLOTS: &[Step] = &[
    ("a slot can be short", "a", "late", Claims(Limits::new(SHORT, Some(2), SHORT)), Granted),
    ("a second slot is granted", "b", "next", Claims(TWO), Granted),
    ("time passes", "a", "late", Waits(SHORT.saturating_add(SHORT)), Granted),
    ("a slot that has ended no longer belongs to its holder", "a", "late", Claims(ONE), MUST_WAIT),
    ("a late holder has lost its lease", "a", "late", Finishes(LONG), Held(false)),
    ("a holder releases its lease", "b", "next", Finishes(ZERO), Held(true)),
    ("a slot expires, and is not extended after that", "c", "third", Claims(ONE), Granted),
];

#[rustfmt::skip]
const LATE_SLOTS: &[Step] = &[
    ("a free slot is granted", "a", "me", Claims(Limits::new(LONG, Some(1), LONG)), Granted),
    ("a slot that ends later than any request can is shortened",
        "b", "next", Claims(SHORT_SLOT), Wait(ZERO, SHORT.saturating_add(SHORT))),
    ("time passes", "a", "me", Waits(SHORT.saturating_add(SHORT)), Granted),
    ("a slot that was shortened ends then", "b", "next", Claims(SHORT_SLOT), Granted),
];

#[rustfmt::skip]
const LATE_ANSWERS: &[Step] = &[
    ("a free slot is granted", "a", "late", Claims(Limits::new(SHORT, Some(1), MEDIUM)), Granted),
    ("time passes", "a", "late", Waits(SHORT), Granted),
    ("a late holder has lost its lease", "a", "late", Finishes(LONG), Held(false)),
    ("time passes", "a", "late", Waits(MEDIUM), Granted),
    ("a slot lasts for `frees_after`, even beyond its lease and window",
        "b", "next", Claims(ONE), MUST_WAIT),
];

/// Runs the steps with new names.
async fn follow<S: TokenStore>(store: &S, steps: &[Step]) -> Result<(), Error> {
    let run = Name::random()?;
    let name = |what: &str| Name::digest_of(format!("{run} {what}").as_bytes());
    for &(rule, key, holder, action, expected) in steps {
        let window = name(match key {
            "elsewhere" => "another",
            _ => "window",
        });
        let (key, holder) = (name(key), name(holder));
        let mut finish = Finish::new(key.clone(), window.clone(), holder.clone(), ZERO);
        let mut claim = Claim::new(key, window, holder, NO_LIMIT);
        match action {
            Claims(limits) => claim.limits = limits,
            ClaimsAfter(seen, limits) => (claim.limits, claim.seen) = (limits, Some(name(seen))),
            Looks => claim.may_fetch = false,
            Finishes(frees_after) => finish.frees_after = frees_after,
            Saves(bytes, life) => finish = finish.entry(bytes.to_vec(), life),
            Waits(time) => {
                tokio::time::sleep(time + Duration::from_millis(50)).await;
                continue;
            }
        }
        if let Held(held) = expected {
            must(store.finish(&finish).await? == held, rule)?;
            continue;
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

/// Makes 16 concurrent claims, for one key or for 16 keys. Returns how many were granted.
async fn at_once<S: TokenStore>(store: &S, limits: Limits, one_key: bool) -> Result<usize, Error> {
    let (key, window) = (Name::random()?, Name::random()?);
    let mut claims = Vec::new();
    for _ in 0..16 {
        let key = match one_key {
            true => key.clone(),
            false => Name::random()?,
        };
        claims.push(Claim::new(key, window.clone(), Name::random()?, limits));
    }
    let running = claims.iter().map(|claim| Box::pin(store.claim(claim)));
    let (mut running, mut results): (Vec<_>, Vec<_>) = (running.collect(), Vec::new());
    poll_fn(|cx| {
        running.retain_mut(|claim| match claim.as_mut().poll(cx) {
            Poll::Ready(result) => {
                results.push(result);
                false
            }
            Poll::Pending => true,
        });
        match running.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    let claimed: Vec<Claimed> = results.into_iter().collect::<Result<_, _>>()?;
    let granted = claimed.iter().filter(|it| **it == Claimed::Granted);
    Ok(granted.count())
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
