//! The content of a sealed entry: a token, a failure, or both. Pure; JSON.
//!
//! A failed refresh keeps the token that still lives, so that a process that
//! starts meanwhile finds both.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::secret::Secret;
use crate::token::AccessToken;

/// Failures this far apart are not in a row.
const FAILURE_MEMORY: Duration = Duration::from_secs(60);
/// The longest pause after a failure.
const MAX_FAILURE_HOLD: Duration = Duration::from_secs(60 * 60);

/// The content of a sealed entry, with durations counted from `sealed_at`.
#[derive(Debug)]
pub(super) struct Entry {
    /// By the writer's wall clock.
    pub(super) sealed_at: SystemTime,
    pub(super) token: Option<StoredToken>,
    pub(super) failure: Option<Failure>,
}

/// A token as its fetcher received it; `expires_in` is its whole life.
#[derive(Debug, Clone)]
pub(super) struct StoredToken {
    pub(super) token: AccessToken,
    /// What was left of its life when the entry was sealed.
    pub(super) left: Duration,
    /// The holder that fetched it.
    pub(super) minted_by: String,
    /// It replaced a token that a server had answered 401 to.
    pub(super) replaced_rejected: bool,
}

/// A token request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// In a row, this one included.
    failures: u32,
    /// How long no process asks the endpoint again.
    hold: Duration,
}

// No `Debug`: it would show the token.
#[derive(Serialize, Deserialize)]
struct Json<'a> {
    sealed_at: u64,
    /// The life that the store was given: tells the age by the store's clock.
    life: u64,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    token: Option<TokenJson<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    failure: Option<FailureJson<'a>>,
}

#[derive(Serialize, Deserialize)]
struct TokenJson<'a> {
    #[serde(borrow)]
    value: &'a str,
    granted: u64,
    left: u64,
    minted_by: &'a str,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    scope: Option<Cow<'a, str>>,
    replaced_rejected: bool,
}

#[derive(Serialize, Deserialize)]
struct FailureJson<'a> {
    kind: &'a str,
    failures: u32,
    hold: u64,
}

impl Entry {
    /// How long the store keeps it.
    pub(super) fn life(&self) -> Duration {
        let token = self.token.as_ref().map_or(Duration::ZERO, |t| t.left);
        let failure = self.failure.map_or(Duration::ZERO, |failure| {
            failure.hold.saturating_add(FAILURE_MEMORY)
        });
        token.max(failure)
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let token = self.token.as_ref().map(|stored| TokenJson {
            value: bare(&stored.token),
            granted: millis(stored.token.expires_in()),
            left: millis(stored.left),
            minted_by: &stored.minted_by,
            scope: stored.token.scope().map(Cow::Borrowed),
            replaced_rejected: stored.replaced_rejected,
        });
        let failure = self.failure.as_ref().map(|failure| FailureJson {
            kind: failure.kind.as_str(),
            failures: failure.failures,
            hold: millis(failure.hold),
        });
        // Room from the start: a buffer that grows leaves its old bytes behind.
        let scope = token.as_ref().and_then(|token| token.scope.as_ref());
        let text = token.as_ref().map_or(0, |token| token.value.len());
        let room = 512 + text + scope.map_or(0, |scope| 6 * scope.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let json = Json {
            sealed_at: wall_millis(self.sealed_at),
            life: millis(self.life()),
            token,
            failure,
        };
        // Numbers and strings always serialize; nothing decodes as an entry.
        let _ = serde_json::to_writer(&mut *bytes, &json);
        bytes
    }

    /// The entry and its age, by the clock that says most: the writer's wall
    /// clock against ours, or the store's. `None` for what this version did not
    /// write.
    pub(super) fn decode(
        bytes: &[u8],
        wall: SystemTime,
        expires_in: Duration,
    ) -> Option<(Self, Duration)> {
        let json: Json<'_> = serde_json::from_slice(bytes).ok()?;
        let sealed_at = UNIX_EPOCH.checked_add(Duration::from_millis(json.sealed_at))?;
        let token = match json.token {
            None => None,
            Some(token) => Some(StoredToken::from_json(token)?),
        };
        let failure = match json.failure {
            None => None,
            Some(failure) => Some(Failure::from_json(&failure)?),
        };
        let entry = Self {
            sealed_at,
            token,
            failure,
        };
        let by_store = entry.life().saturating_sub(expires_in);
        let by_wall = wall.duration_since(sealed_at).unwrap_or_default();
        Some((entry, by_store.max(by_wall)))
    }
}

impl StoredToken {
    fn from_json(json: TokenJson<'_>) -> Option<Self> {
        let granted = Duration::from_millis(json.granted);
        let token = AccessToken::bearer(Secret::from(json.value), granted).ok()?;
        let token = match json.scope {
            Some(scope) => token.with_scope(scope),
            None => token,
        };
        Some(Self {
            left: Duration::from_millis(json.left).min(token.expires_in()),
            token,
            minted_by: json.minted_by.to_owned(),
            replaced_rejected: json.replaced_rejected,
        })
    }
}

impl Failure {
    /// What other processes should know of this error; `None` if it says
    /// nothing about the endpoint. `earlier` is the last failure and how long
    /// ago it was sealed; `chance` in `0.0..1.0` spreads processes.
    pub(super) fn after(error: &Error, earlier: Option<(Self, Duration)>) -> Option<Self> {
        kind(error.kind().as_str())?;
        if error.is_not_attempted() {
            return None;
        }
        let in_a_row =
            |(failure, age): &(Self, Duration)| *age < failure.hold.saturating_add(FAILURE_MEMORY);
        let earlier = earlier
            .filter(in_a_row)
            .map_or(0, |(failure, _)| failure.failures);
        let doublings = 2u32.saturating_pow(earlier);
        let doubled = |base: u64, most: u64| {
            Duration::from_secs(base)
                .saturating_mul(doublings)
                .min(Duration::from_secs(most))
        };
        let own = match error.kind() {
            ErrorKind::RateLimited => doubled(60, 900),
            _ if error.is_transient() => doubled(1, 30),
            _ => doubled(60, 600),
        };
        let hold = match error.retry_after() {
            Some(after) if error.kind() == ErrorKind::RateLimited => after,
            Some(after) => after.max(own),
            None => own,
        };
        Some(Self {
            kind: error.kind(),
            failures: earlier.saturating_add(1),
            hold: hold.clamp(Duration::from_secs(1), MAX_FAILURE_HOLD),
        })
    }

    /// How long it still holds.
    pub(super) fn left(&self, age: Duration) -> Duration {
        self.hold.saturating_sub(age)
    }

    /// The error for a process that did not ask.
    pub(super) fn error(&self, left: Duration) -> Error {
        let kind = self.kind;
        let message = format!("another process's token request has just failed ({kind})");
        Error::new(kind, message).with_retry_after(left)
    }

    fn from_json(json: &FailureJson<'_>) -> Option<Self> {
        Some(Self {
            kind: kind(json.kind)?,
            failures: json.failures,
            hold: Duration::from_millis(json.hold).min(MAX_FAILURE_HOLD),
        })
    }
}

/// The kinds of answer that a token endpoint can give.
fn kind(name: &str) -> Option<ErrorKind> {
    const KINDS: [ErrorKind; 7] = [
        ErrorKind::InvalidClient,
        ErrorKind::InvalidScope,
        ErrorKind::Denied,
        ErrorKind::RateLimited,
        ErrorKind::Timeout,
        ErrorKind::Transport,
        ErrorKind::Malformed,
    ];
    KINDS.into_iter().find(|kind| kind.as_str() == name)
}

/// `Bearer ...` without `Bearer `.
fn bare(token: &AccessToken) -> &str {
    let header = token.header_value().to_str().unwrap_or_default();
    header.strip_prefix("Bearer ").unwrap_or(header)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wall_millis(wall: SystemTime) -> u64 {
    millis(wall.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

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
            token: Some(StoredToken {
                token,
                left: S(3599),
                minted_by: "me".to_owned(),
                replaced_rejected: scope.is_some(),
            }),
            failure,
        }
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let failure = Failure::after(&Error::new(ErrorKind::Denied, ""), None);
        for scope in [None, Some(""), Some("a \"b\"")] {
            let entry = entry(scope, failure);
            let (back, age) = Entry::decode(&entry.encode(), at(0), entry.life()).unwrap();
            let token = back.token.unwrap();
            assert_eq!(token.token.header_value(), "Bearer abc.DEF-123");
            assert_eq!(token.token.expires_in(), S(3600));
            assert_eq!(token.token.scope(), scope);
            assert_eq!((token.left, age), (S(3599), S(0)));
            assert_eq!((&*token.minted_by, back.failure), ("me", failure));
            assert_eq!(token.replaced_rejected, scope.is_some());
        }
    }

    #[test]
    fn other_bytes_are_no_entry() {
        let whole = entry(Some("a b"), None).encode();
        for length in 0..whole.len() {
            assert!(Entry::decode(&whole[..length], at(0), S(1)).is_none());
        }
        for other in [&b"[]"[..], b"{}", b"null", b"{\"sealed_at\":-1,\"life\":1}"] {
            assert!(Entry::decode(other, at(0), S(1)).is_none());
        }
    }

    #[test]
    fn the_age_is_what_the_clock_says_that_says_most() {
        let bytes = entry(None, None).encode();
        let age = |wall, expires_in| Entry::decode(&bytes, wall, expires_in).unwrap().1;
        assert_eq!(age(at(600), S(3599)), S(600));
        assert_eq!(age(at(0), S(2999)), S(600));
        // The writer's clock is ahead of ours: the store's says it.
        assert_eq!(age(at(0) - S(7200), S(2999)), S(600));
    }

    #[test]
    fn the_more_failures_in_a_row_the_longer_the_pause() {
        let holds = |error: &Error| {
            let mut earlier = None;
            let mut holds = Vec::new();
            for _ in 0..7 {
                let failure = Failure::after(error, earlier).unwrap();
                holds.push(failure.hold.as_secs());
                earlier = Some((failure, failure.hold));
            }
            holds
        };
        let down = Error::new(ErrorKind::Transport, "");
        assert_eq!(holds(&down), [1, 2, 4, 8, 16, 30, 30]);
        let limited = Error::new(ErrorKind::RateLimited, "");
        assert_eq!(holds(&limited), [60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(holds(&limited.with_retry_after(S(20)))[..2], [20, 20]);
        let wrong = Error::new(ErrorKind::InvalidClient, "");
        assert_eq!(holds(&wrong)[..5], [60, 120, 240, 480, 600]);
        assert_eq!(holds(&down.clone().with_retry_after(S(20)))[..2], [20, 20]);
        let last = Failure::after(&down, None).unwrap();
        let after_a_while = Failure::after(&down, Some((last, S(62)))).unwrap();
        assert_eq!(after_a_while.failures, 1);
    }

    #[test]
    fn errors_that_say_nothing_about_the_endpoint_are_not_shared() {
        let not_attempted = Error::new(ErrorKind::RateLimited, "").not_attempted();
        for error in [
            not_attempted,
            Error::new(ErrorKind::Store, ""),
            Error::new(ErrorKind::Runtime, ""),
        ] {
            assert!(Failure::after(&error, None).is_none());
        }
    }
}
