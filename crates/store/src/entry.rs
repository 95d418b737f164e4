//! What a sealed entry holds, and whether a process can use it. Pure.
//!
//! A failed refresh keeps the token that still lives, so that a process that starts meanwhile finds both.

use std::time::{Duration, Instant, SystemTime};

use officernd_auth::clock::Clock;
use officernd_auth::provider::Cause;
use officernd_auth::{AccessToken, Error, ErrorKind, FetchContext, Secret, backoff};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::events;
use crate::seal::Sealer;
use crate::store::StoredEntry;

/// Failures that are further apart are not in a row. Also how long a token must live to be handed over, and
/// how old it must be to be replaced after a 401.
const MINUTE: Duration = Duration::from_secs(60);
/// Clocks that differ by more are worth a warning.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is believed.
const MAX_HOLD: Duration = Duration::from_secs(60 * 60);
/// A refusal to replace a token that is too young asks again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The content of a sealed entry, as JSON.
// No `Debug`, here and below: it would show the token.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    /// By the writer's wall clock.
    sealed_at: SystemTime,
    token: Option<Token>,
    failure: Option<Failure>,
}

/// A token, as the process that fetched it received it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    value: Zeroizing<String>,
    scope: Option<String>,
    /// Its whole life.
    pub(crate) granted: Duration,
    /// What was left of its life when the entry was sealed.
    pub(crate) left: Duration,
    /// The holder that fetched it: a failed refresh saves a token again, and that does not make it a new one.
    pub(crate) minted_by: String,
}

/// A token request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: ErrorKind,
    /// Failures in a row, this one included.
    failures: u32,
    /// How long no process sends another token request.
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

    /// Returns how long the store keeps it.
    pub(crate) fn life(&self) -> Duration {
        let token = self.token.as_ref().map_or(Duration::ZERO, |it| it.left);
        let failure = self.failure.map_or(Duration::ZERO, Failure::life);
        token.max(failure)
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room from the start: a buffer that grows leaves its old bytes behind.
        let token = self.token.as_ref();
        let scope = token.and_then(|token| token.scope.as_ref());
        let text = token.map_or(0, |token| token.value.len());
        let room = 512 + text + scope.map_or(0, |scope| 6 * scope.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        // Fails for a date before 1970 only; nothing decodes as an entry.
        let _ = serde_json::to_writer(&mut *bytes, self);
        bytes
    }
}

impl Token {
    /// A token that `minted_by` has fetched, with its whole life left.
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

    /// `None` if nothing is left of it.
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
    /// What other processes should know of this error; `None` if it says nothing about the token endpoint.
    /// `earlier` is the last failure and how long ago it was saved.
    pub(crate) fn after(error: &Error, earlier: Option<(Self, Duration)>) -> Option<Self> {
        let about_us = matches!(error.kind(), ErrorKind::Store | ErrorKind::Runtime);
        if about_us || error.is_not_attempted() {
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

    /// How long the store keeps it: a later failure is counted from it.
    fn life(self) -> Duration {
        self.hold.saturating_add(MINUTE)
    }

    /// The error for a process that read this failure from the store.
    fn error(self, left: Duration) -> Error {
        let kind = self.kind;
        let message = format!("another process's token request has just failed ({kind})");
        let error = Error::new(kind, message).not_attempted();
        error.with_retry_after(left).with_max_backoff(left)
    }
}

/// An entry that was opened.
pub(crate) struct Opened {
    entry: Entry,
    /// Its age when it was opened: the larger of what the wall clocks and the store's clock say.
    age: Duration,
    opened_at: Instant,
}

impl Opened {
    /// `None`, and an event, for what was not sealed under this name.
    pub(crate) fn new(stored: &StoredEntry, sealer: &Sealer, clock: &dyn Clock) -> Option<Self> {
        let plain = sealer.open(&stored.sealed);
        let entry = plain.and_then(|plain| serde_json::from_slice::<Entry>(&plain).ok());
        let Some(mut entry) = entry else {
            events::entry_unusable();
            return None;
        };
        // Another version may have written it.
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

    /// Returns the token, with what is left of it, or the failure that is not over. `None` if the fetch can
    /// use neither.
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
            // For differences between clocks.
            let margin = Duration::from_secs(1).min(token.granted / 20);
            let text = cx.previous().map(AccessToken::header_value);
            let candidate = Candidate {
                left: token.left.saturating_sub(margin),
                granted: token.granted,
                minted_by: &token.minted_by,
                same_text: text == Some(bearer.header_value()),
                last,
                previous_left: cx.previous_left().unwrap_or_default(),
            };
            match candidate.verdict(cx.cause()) {
                Verdict::Accept => {
                    let left = candidate.left;
                    return Some(Ok(Token { left, ..token }));
                }
                Verdict::TooYoung => return Some(Err(too_young())),
                Verdict::Refuse => {}
            }
        }
        let failure = self.failure(now);
        let failure = failure.map(|(failure, age)| (failure, failure.hold.saturating_sub(age)));
        let (failure, left) = failure.filter(|(_, left)| !left.is_zero())?;
        Some(Err(failure.error(left)))
    }

    /// The token that still lives, with what is left of it now.
    pub(crate) fn token(&self, now: Instant) -> Option<Token> {
        let token = self.entry.token.clone()?;
        let left = token.left.saturating_sub(self.age(now));
        token.with_left(left)
    }

    /// The last failure, and how long ago it was saved.
    pub(crate) fn failure(&self, now: Instant) -> Option<(Failure, Duration)> {
        Some((self.entry.failure?, self.age(now)))
    }

    fn age(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.opened_at);
        self.age.saturating_add(since)
    }
}

fn too_young() -> Error {
    let message = "a server rejected a token that was fetched less than a minute ago; another one \
                   is fetched when it is older";
    let error = Error::new(ErrorKind::RateLimited, message).not_attempted();
    error.with_retry_after(ASK_AGAIN)
}

/// A stored token, beside the one that the cache has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// The rest of its life, less 1 s (at most a twentieth of its life) for differences between clocks.
    pub(crate) left: Duration,
    pub(crate) granted: Duration,
    pub(crate) minted_by: &'a str,
    /// Whether it is the text that the cache has.
    pub(crate) same_text: bool,
    /// Who minted the cache's token; `None` if it was minted without the store.
    pub(crate) last: Option<&'a str>,
    /// What is left of the cache's token; zero without one.
    pub(crate) previous_left: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Use the stored token.
    Accept,
    /// Ask for a new one.
    Refuse,
    /// Keep the cache's token although a server answered 401 to it: a 401 may mean a missing scope, and then
    /// each process that starts would spend a token request to find that out.
    TooYoung,
}

impl Candidate<'_> {
    pub(crate) fn verdict(&self, cause: Cause) -> Verdict {
        let short = MINUTE.min(self.granted / 4);
        let age = self.granted.saturating_sub(self.left);
        if cause == Cause::Rejected && self.same_text && age < short {
            return Verdict::TooYoung;
        }
        let enough = !self.left.is_zero() && self.left >= short;
        // Only the holder of the lease saves, so another holder's is newer.
        let newer = match self.last {
            Some(last) => last != self.minted_by,
            None => self.left > self.previous_left,
        };
        let fits = match cause {
            Cause::Rejected | Cause::Manual => !self.same_text,
            // The same text: the server repeats its token, so do not ask again.
            Cause::Ahead => self.same_text || self.left >= self.granted / 2,
            // Cold and expired.
            _ => true,
        };
        match newer && enough && fits {
            true => Verdict::Accept,
            false => Verdict::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;
    use crate::store::Name;
    use Verdict::{Accept, Refuse, TooYoung};
    use officernd_auth::clock::TokioClock;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_table_of_verdicts() {
        use Cause::{Ahead, Cold, Expired, Manual, Rejected};
        // The cause; the stored token's seconds left of 3,600, its holder, and whether its text is the
        // cache's; the cache's token: who minted it, if that is known, and its seconds left.
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
            // The server repeats its token.
            (Ahead,    ( 300, "a", true),  (Some("b"), 300),  Accept),
            // Fetched without the store, and handed over later.
            (Ahead,    ( 299, "a", true),  (None, 300),       Refuse),
            (Ahead,    (3500, "a", false), (None, 300),       Accept),
            (Rejected, (3500, "a", true),  (Some("a"), 3500), Refuse),
            (Rejected, (3500, "a", true),  (Some("b"), 3500), Refuse),
            (Rejected, (3599, "a", false), (Some("a"), 3500), Refuse),
            (Rejected, (3599, "a", false), (Some("b"), 3500), Accept),
            // New tokens live shorter than what was left of the revoked one.
            (Rejected, ( 900, "a", false), (Some("b"), 3500), Accept),
            // An older one is not taken for a rejected one.
            (Rejected, (3400, "a", false), (None, 3500),      Refuse),
            (Rejected, (3541, "a", true),  (Some("a"), 3541), TooYoung),
            (Rejected, (3540, "a", true),  (Some("a"), 3540), Refuse),
            (Manual,   (3590, "a", true),  (Some("a"), 3590), Refuse),
            (Manual,   (3500, "a", true),  (Some("b"), 3500), Refuse),
            (Manual,   (3599, "a", false), (Some("b"), 3598), Accept),
        ];
        for (cause, (left, minted_by, same_text), (last, previous_left), verdict) in table {
            let candidate = Candidate {
                left: S(left),
                granted: S(3600),
                minted_by,
                same_text,
                last,
                previous_left: S(previous_left),
            };
            assert_eq!(candidate.verdict(cause), verdict, "{cause:?} {candidate:?}");
        }
    }

    #[test]
    fn a_quarter_of_a_short_life_stands_for_the_minute() {
        let verdict = |cause, left| {
            let candidate = Candidate {
                left: Duration::from_millis(left),
                granted: S(2),
                minted_by: "a",
                same_text: cause == Cause::Rejected,
                last: (cause == Cause::Rejected).then_some("a"),
                previous_left: S(0),
            };
            candidate.verdict(cause)
        };
        assert_eq!(verdict(Cause::Cold, 500), Accept);
        assert_eq!(verdict(Cause::Cold, 499), Refuse);
        assert_eq!(verdict(Cause::Rejected, 1501), TooYoung);
        assert_eq!(verdict(Cause::Rejected, 1500), Refuse);
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + S(1_800_000_000 + seconds)
    }

    fn entry(scope: Option<&str>, failure: Option<Failure>) -> Entry {
        let token = AccessToken::bearer("abc.DEF-123", S(3600)).unwrap();
        let token = match scope {
            Some(scope) => token.with_scope(scope),
            None => token,
        };
        Entry {
            sealed_at: at(0),
            token: Token::new(&token, "me").with_left(S(3599)),
            failure,
        }
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let failure = Failure::after(&Error::new(ErrorKind::Denied, ""), None);
        for scope in [None, Some(""), Some("a \"b\"")] {
            let bytes = entry(scope, failure).encode();
            let back: Entry = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((back.sealed_at, back.failure), (at(0), failure));
            let token = back.token.unwrap();
            let bearer = token.bearer(token.granted).unwrap();
            assert_eq!(bearer.header_value(), "Bearer abc.DEF-123");
            assert_eq!(bearer.expires_in(), S(3600));
            assert_eq!(bearer.scope(), scope);
            assert_eq!((token.left, &*token.minted_by), (S(3599), "me"));
        }
    }

    #[test]
    fn failures_in_a_row_are_counted_and_then_forgotten() {
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
        let after_a_while = Failure::after(&down, Some((first, S(61)))).unwrap();
        assert_eq!(after_a_while, first);
    }

    #[test]
    fn errors_that_say_nothing_about_the_endpoint_are_not_shared() {
        for error in [
            Error::new(ErrorKind::RateLimited, "").not_attempted(),
            Error::new(ErrorKind::Store, ""),
            Error::new(ErrorKind::Runtime, ""),
        ] {
            assert!(Failure::after(&error, None).is_none());
        }
    }
    /// A duration as serde writes it, up to the largest.
    fn duration() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;

        let secs = prop_oneof![0..10_000_u64, any::<u64>(), Just(u64::MAX)];
        (secs, 0..1_100_000_000_u32).prop_map(|(secs, nanos)| json!({"secs": secs, "nanos": nanos}))
    }

    proptest::proptest! {
        /// Another version may have written it.
        #[test]
        fn any_content_is_a_sound_token_or_a_sound_failure_or_useless(
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
