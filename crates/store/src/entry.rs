//! The content of a sealed entry, and whether a process can use it. Pure.
//!
//! A failed refresh stores the failure together with the old token, if it is valid, so that a new process finds
//! both.

use std::time::{Duration, Instant, SystemTime};

use officernd_auth::clock::Clock;
use officernd_auth::provider::Cause;
use officernd_auth::{AccessToken, Error, ErrorKind, FetchContext, Secret, backoff};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::events;
use crate::seal::Sealer;
use crate::store::StoredEntry;

/// The time for three rules. A failure counts as consecutive until a minute after its backoff. A stored token is
/// taken if it is valid for a minute. A token is replaced after a 401 once it is a minute old.
const MINUTE: Duration = Duration::from_secs(60);
/// The largest difference between two clocks that is not logged.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The longest shared backoff.
const MAX_HOLD: Duration = Duration::from_secs(60 * 60);
/// How long to wait before replacing a token that is too young.
const TOO_YOUNG_RETRY: Duration = Duration::from_secs(5);

/// The content of a sealed entry, as JSON.
// Neither this nor `Token` implements `Debug`, which would show the token.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The time by the writer's wall clock.
    sealed_at: SystemTime,
    token: Option<Token>,
    failure: Option<Failure>,
}

/// A token, as received from the endpoint.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    value: Zeroizing<String>,
    scope: Option<String>,
    /// Its full lifetime.
    pub(crate) granted: Duration,
    /// Its remaining lifetime when the entry was sealed.
    pub(crate) left: Duration,
    /// The holder that fetched it, which may differ from the holder that saved the entry: a failed refresh saves
    /// a token again.
    pub(crate) minted_by: String,
}

/// A token request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: ErrorKind,
    /// Consecutive failures, including this one.
    failures: u32,
    /// How long no process sends another token request: the shared backoff.
    pub(crate) hold: Duration,
}

impl Entry {
    pub(crate) fn new(clock: &dyn Clock, token: Option<Token>, failure: Option<Failure>) -> Self {
        Self {
            sealed_at: clock.wall(),
            token,
            failure,
        }
    }

    /// Returns how long the store keeps the entry.
    pub(crate) fn life(&self) -> Duration {
        let token = self.token.as_ref().map_or(Duration::ZERO, |it| it.left);
        let failure = self.failure.map_or(Duration::ZERO, Failure::life);
        token.max(failure)
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Allocates once: a buffer that grows leaves copies of the token in freed memory.
        let token = self.token.as_ref();
        let scope = token.and_then(|token| token.scope.as_ref());
        let text = token.map_or(0, |token| token.value.len());
        let room = 512 + text + scope.map_or(0, |scope| 6 * scope.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        // Fails only for a date before 1970. The empty result does not decode, so it is ignored.
        let _ = serde_json::to_writer(&mut *bytes, self);
        bytes
    }
}

impl Token {
    /// Makes a token that `minted_by` has fetched, with its full lifetime remaining.
    pub(crate) fn new(token: &AccessToken, minted_by: &str) -> Self {
        let header = token.header_value().to_str().unwrap_or_default();
        let value = header.strip_prefix("Bearer ").unwrap_or(header);
        Self {
            value: Zeroizing::new(value.to_owned()),
            scope: token.scope().map(str::to_owned),
            granted: token.expires_in(),
            left: token.expires_in(),
            minted_by: minted_by.to_owned(),
        }
    }

    /// Sets the remaining lifetime. Returns `None` if it is zero.
    pub(crate) fn with_left(mut self, left: Duration) -> Option<Self> {
        self.left = left;
        (!left.is_zero()).then_some(self)
    }

    /// Returns the token with this lifetime.
    pub(crate) fn bearer(&self, life: Duration) -> Result<AccessToken, Error> {
        let token = AccessToken::bearer(Secret::from(&**self.value), life)?;
        Ok(match &self.scope {
            Some(scope) => token.with_scope(scope),
            None => token,
        })
    }
}

impl Failure {
    /// Returns the failure to share, or `None` if the error is not the token endpoint's. `earlier` is the last failure
    /// and how long ago it was saved.
    pub(crate) fn after(error: &Error, earlier: Option<(Self, Duration)>) -> Option<Self> {
        let is_local = matches!(error.kind(), ErrorKind::Store | ErrorKind::Runtime);
        if is_local || error.is_not_attempted() {
            return None;
        }
        let earlier = earlier.filter(|(failure, age)| *age < failure.life());
        let failures = earlier.map_or(0, |(failure, _)| failure.failures);
        let failures = failures.saturating_add(1);
        Some(Self {
            kind: error.kind(),
            failures,
            hold: backoff(error, failures, 1.0),
        })
    }

    /// Returns how long the store keeps it, so that consecutive failures are counted.
    fn life(self) -> Duration {
        self.hold.saturating_add(MINUTE)
    }

    /// Makes the error of a process that read this failure from the store.
    fn error(self, left: Duration) -> Error {
        let kind = self.kind;
        let message = format!("another process's token request has just failed ({kind})");
        let error = Error::new(kind, message).not_attempted();
        error.with_retry_after(left).with_max_backoff(left)
    }
}

/// An opened entry.
pub(crate) struct Opened {
    entry: Entry,
    /// Its age when it was opened, by the wall clocks or by the store's clock, whichever is larger.
    age: Duration,
    opened_at: Instant,
}

impl Opened {
    /// Opens an entry. Returns `None`, and emits an event, if it was not sealed with these credentials.
    pub(crate) fn new(stored: &StoredEntry, sealer: &Sealer, clock: &dyn Clock) -> Option<Self> {
        let plain = sealer.open(&stored.sealed);
        let entry = plain.and_then(|plain| serde_json::from_slice::<Entry>(&plain).ok());
        let Some(mut entry) = entry else {
            events::entry_unusable();
            return None;
        };
        // Another version of this crate may have written a longer one.
        if let Some(failure) = &mut entry.failure {
            failure.hold = failure.hold.min(MAX_HOLD);
        }
        let by_store = entry.life().saturating_sub(stored.expires_in);
        let by_wall = clock.wall().duration_since(entry.sealed_at);
        let age = by_wall.unwrap_or_default().max(by_store);
        let left = entry.token.as_ref().map(|token| token.left);
        if left.is_some_and(|left| left <= age && left > by_store.saturating_add(MAX_CLOCK_SKEW)) {
            events::clock_differs(age.saturating_sub(by_store));
        }
        Some(Self {
            entry,
            age,
            opened_at: clock.now(),
        })
    }

    /// Returns the token with its remaining lifetime, or the failure whose backoff has not ended; `None` if the
    /// fetch can use neither.
    pub(crate) fn read(
        &self,
        cx: &FetchContext,
        last: Option<&str>,
    ) -> Option<Result<Token, Error>> {
        let now = cx.clock().now();
        let token = self
            .token(now)
            .and_then(|token| Some((token.bearer(token.granted).ok()?, token)));
        if let Some((bearer, token)) = token {
            // Clocks may differ by this much.
            let margin = Duration::from_secs(1).min(token.granted / 20);
            let text = cx.previous().map(AccessToken::header_value);
            let candidate = Candidate {
                left: token.left.saturating_sub(margin),
                granted: token.granted,
                minted_by: &token.minted_by,
                same_value: text == Some(bearer.header_value()),
                last,
                previous_left: cx.previous_left().unwrap_or_default(),
            };
            match candidate.verdict(cx.cause()) {
                Verdict::Accept => {
                    let left = candidate.left;
                    return Some(Ok(Token { left, ..token }));
                }
                Verdict::TooYoung => {
                    let message = "a server rejected a token that was fetched less than a minute ago; \
                                   it is replaced when it is a minute old";
                    let error = Error::new(ErrorKind::RateLimited, message).not_attempted();
                    return Some(Err(error.with_retry_after(TOO_YOUNG_RETRY)));
                }
                Verdict::Refuse => {}
            }
        }
        let (failure, age) = self.failure(now)?;
        let left = failure.hold.saturating_sub(age);
        (!left.is_zero()).then(|| Err(failure.error(left)))
    }

    /// Returns the token with its remaining lifetime, unless it has expired.
    pub(crate) fn token(&self, now: Instant) -> Option<Token> {
        let token = self.entry.token.clone()?;
        let left = token.left.saturating_sub(self.age(now));
        token.with_left(left)
    }

    /// Returns the last failure, and how long ago it was saved.
    pub(crate) fn failure(&self, now: Instant) -> Option<(Failure, Duration)> {
        Some((self.entry.failure?, self.age(now)))
    }

    fn age(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.opened_at);
        self.age.saturating_add(since)
    }
}

/// A stored token, compared with the cache's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// Its remaining lifetime, less 1 s (at most a twentieth of its lifetime) for differences between clocks.
    pub(crate) left: Duration,
    pub(crate) granted: Duration,
    pub(crate) minted_by: &'a str,
    /// Whether it is the same string as the cache's token.
    pub(crate) same_value: bool,
    /// The holder that minted the cache's token; `None` if it was fetched without the store.
    pub(crate) last: Option<&'a str>,
    /// The remaining lifetime of the cache's token; zero without one.
    pub(crate) previous_left: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Use the stored token.
    Accept,
    /// Fetch a new token.
    Refuse,
    /// Keep the cache's token despite a 401. The 401 may mean a missing scope, and then each process that starts
    /// would use a token request without effect.
    TooYoung,
}

impl Candidate<'_> {
    pub(crate) fn verdict(&self, cause: Cause) -> Verdict {
        let short = MINUTE.min(self.granted / 4);
        let age = self.granted.saturating_sub(self.left);
        if cause == Cause::Rejected && self.same_value && age < short {
            return Verdict::TooYoung;
        }
        let enough = !self.left.is_zero() && self.left >= short;
        // Only the holder of the lease saves, so a token of another holder is newer.
        let newer = match self.last {
            Some(last) => last != self.minted_by,
            None => self.left > self.previous_left,
        };
        let fits = match cause {
            Cause::Rejected | Cause::Manual => !self.same_value,
            // The same string means that the server re-issues its token until the token expires.
            Cause::Ahead => self.same_value || self.left >= self.granted / 2,
            // Cold and expired.
            _ => true,
        };
        if newer && enough && fits {
            Verdict::Accept
        } else {
            Verdict::Refuse
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Name;
    use Verdict::{Accept, Refuse, TooYoung};
    use officernd_auth::clock::TokioClock;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_table_of_verdicts() {
        use Cause::{Ahead, Cold, Expired, Manual, Rejected};
        // The cause; the stored token's remaining seconds of 3,600, its holder, and whether it is the same
        // string as the cache's; for the cache's token, its holder if known and its remaining seconds.
        #[rustfmt::skip]
        let table = [
            (Cold,     (3000, "a", false), (None, 0),         Accept),
            (Cold,     (  60, "a", false), (None, 0),         Accept),
            (Cold,     (  59, "a", false), (None, 0),         Refuse),
            (Manual,   (3000, "a", false), (None, 0),         Accept),
            (Expired,  (3000, "a", false), (Some("b"), 5),    Accept),
            (Expired,  (3000, "a", true),  (Some("a"), 3000), Refuse),
            (Expired,  (3000, "a", false), (None, 2900),      Accept),
            (Expired,  (2900, "a", false), (None, 2900),      Refuse),
            (Ahead,    (3590, "a", false), (Some("b"), 300),  Accept),
            (Ahead,    (1800, "a", false), (Some("b"), 300),  Accept),
            (Ahead,    (1799, "a", false), (Some("b"), 300),  Refuse),
            (Ahead,    ( 300, "a", true),  (Some("a"), 300),  Refuse),
            // The server re-issues its token.
            (Ahead,    ( 300, "a", true),  (Some("b"), 300),  Accept),
            // The cache's token was fetched without the store.
            (Ahead,    ( 299, "a", true),  (None, 300),       Refuse),
            (Ahead,    (3500, "a", false), (None, 300),       Accept),
            (Rejected, (3500, "a", true),  (Some("a"), 3500), Refuse),
            (Rejected, (3500, "a", true),  (Some("b"), 3500), Refuse),
            (Rejected, (3599, "a", false), (Some("a"), 3500), Refuse),
            (Rejected, (3599, "a", false), (Some("b"), 3500), Accept),
            // New tokens have a shorter lifetime than the revoked one had left.
            (Rejected, ( 900, "a", false), (Some("b"), 3500), Accept),
            // An older token does not replace a rejected one.
            (Rejected, (3400, "a", false), (None, 3500),      Refuse),
            (Rejected, (3541, "a", true),  (Some("a"), 3541), TooYoung),
            (Rejected, (3540, "a", true),  (Some("a"), 3540), Refuse),
            (Manual,   (3590, "a", true),  (Some("a"), 3590), Refuse),
            (Manual,   (3500, "a", true),  (Some("b"), 3500), Refuse),
            (Manual,   (3599, "a", false), (Some("b"), 3598), Accept),
        ];
        let verdict = |cause, granted, (left, minted_by, same_value), (last, previous_left)| {
            let candidate = Candidate {
                left,
                granted: S(granted),
                minted_by,
                same_value,
                last,
                previous_left: S(previous_left),
            };
            candidate.verdict(cause)
        };
        for (cause, (left, minted_by, same), cached, expected) in table {
            let verdict = verdict(cause, 3600, (S(left), minted_by, same), cached);
            assert_eq!(
                verdict, expected,
                "{cause:?} {left} {minted_by} {same} {cached:?}"
            );
        }
        // For a short lifetime, a quarter of it is used instead of the minute.
        for (cause, left, same, cached, expected) in [
            (Cold, 500, false, (None, 0), Accept),
            (Cold, 499, false, (None, 0), Refuse),
            (Rejected, 1501, true, (Some("a"), 0), TooYoung),
            (Rejected, 1500, true, (Some("a"), 0), Refuse),
        ] {
            let left = Duration::from_millis(left);
            assert_eq!(verdict(cause, 2, (left, "a", same), cached), expected);
        }
    }

    #[test]
    fn consecutive_failures_are_counted_until_a_minute_after_the_backoff() {
        let down = Error::new(ErrorKind::Transport, "");
        let mut earlier = None;
        let mut holds = Vec::new();
        for _ in 0..6 {
            let failure = Failure::after(&down, earlier).unwrap();
            holds.push(failure.hold.as_secs());
            earlier = Some((failure, failure.hold));
        }
        assert_eq!(holds, [1, 4, 8, 16, 30, 30]);
        let first = Failure::after(&down, None).unwrap();
        let a_minute_later = Failure::after(&down, Some((first, S(61)))).unwrap();
        assert_eq!(a_minute_later, first);
        // These are not failures of the endpoint.
        for kind in [ErrorKind::Store, ErrorKind::Runtime] {
            assert!(Failure::after(&Error::new(kind, ""), None).is_none());
        }
        assert!(Failure::after(&down.not_attempted(), None).is_none());
    }

    /// Generates durations as serde writes them, up to the largest.
    fn duration() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;

        let secs = prop_oneof![0..10_000_u64, any::<u64>(), Just(u64::MAX)];
        (secs, 0..1_100_000_000_u32).prop_map(|(secs, nanos)| json!({"secs": secs, "nanos": nanos}))
    }

    proptest::proptest! {
        /// Content of any version of this crate.
        #[test]
        fn any_content_is_a_valid_token_a_valid_failure_or_useless(
            sealed_at in proptest::num::u64::ANY,
            value in "[ -~]{0,40}",
            (granted, left, hold) in (duration(), duration(), duration()),
            failures in proptest::num::u32::ANY,
            kind in "(transport|denied|rate_limited|invalid_client|x)",
            expires_in in proptest::num::u64::ANY,
        ) {
            let content = json!({
                "sealed_at": {"secs_since_epoch": sealed_at, "nanos_since_epoch": 0},
                "token": {
                    "value": value, "scope": null, "minted_by": "", "granted": granted, "left": left,
                },
                "failure": {"kind": kind, "failures": failures, "hold": hold},
            });
            let sealer = Sealer::new(b"secret", b"");
            let sealed = sealer.seal([0; 24], content.to_string().as_bytes()).unwrap();
            let expires_in = Duration::from_millis(expires_in);
            let stored = StoredEntry::new(Name::digest_of(b""), sealed, expires_in);
            let opened = Opened::new(&stored, &sealer, &TokioClock);
            match opened.and_then(|opened| opened.read(&FetchContext::default(), None)) {
                Some(Ok(token)) => {
                    let token = token.bearer(token.left).unwrap();
                    assert!(token.expires_in() <= S(24 * 60 * 60));
                    assert!(token.header_value().is_sensitive());
                }
                Some(Err(error)) => {
                    let wait = error.retry_after().unwrap();
                    assert!(wait <= S(60 * 60), "{wait:?}");
                }
                None => {}
            }
        }
    }
}
