//! The content of a sealed entry: a token, a failure, or both. Pure; JSON.
//!
//! A failed refresh keeps the token that still lives, so that a process that
//! starts meanwhile finds both.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::backoff::{Failure, FailureJson};
use super::store::whole_millis;
use crate::secret::Secret;
use crate::token::AccessToken;

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

impl Entry {
    /// How long the store keeps it.
    pub(super) fn life(&self) -> Duration {
        let token = self.token.as_ref().map_or(Duration::ZERO, |t| t.left);
        let failure = self.failure.map_or(Duration::ZERO, |it| it.life());
        token.max(failure)
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let token = self.token.as_ref().map(|stored| TokenJson {
            value: bare(&stored.token),
            granted: whole_millis(stored.token.expires_in()),
            left: whole_millis(stored.left),
            minted_by: &stored.minted_by,
            scope: stored.token.scope().map(Cow::Borrowed),
            replaced_rejected: stored.replaced_rejected,
        });
        let failure = self.failure.map(Failure::to_json);
        // Room from the start: a buffer that grows leaves its old bytes behind.
        let scope = token.as_ref().and_then(|token| token.scope.as_ref());
        let text = token.as_ref().map_or(0, |token| token.value.len());
        let room = 512 + text + scope.map_or(0, |scope| 6 * scope.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let json = Json {
            sealed_at: wall_millis(self.sealed_at),
            life: whole_millis(self.life()),
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

/// `Bearer ...` without `Bearer `.
fn bare(token: &AccessToken) -> &str {
    let header = token.header_value().to_str().unwrap_or_default();
    header.strip_prefix("Bearer ").unwrap_or(header)
}

fn wall_millis(wall: SystemTime) -> u64 {
    whole_millis(wall.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

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
}
