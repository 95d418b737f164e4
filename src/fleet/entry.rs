//! What is under the seal: a token with its dates, or a failure. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::secret::Secret;
use crate::token::{AccessToken, MAX_LIFE};

/// A token as its fetcher got it.
#[derive(Debug)]
pub(super) struct TokenEntry {
    pub(super) token: AccessToken,
    /// When the request for it was sent, by the sender's wall clock.
    pub(super) born: SystemTime,
    /// It replaced one that a server had answered 401 to.
    pub(super) heals: bool,
}

/// What the byte after the token says.
const HAS_SCOPE: u8 = 1;
const HEALS: u8 = 2;

impl TokenEntry {
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let token = bare(&self.token);
        let scope = self.token.scope().map(str::as_bytes);
        // Room from the start: a buffer that grows leaves its old bytes behind.
        let room = 32 + token.len() + scope.map_or(0, <[u8]>::len);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.extend(wall_millis(self.born).to_be_bytes());
        bytes.extend(millis(self.token.expires_in()).to_be_bytes());
        bytes.extend(millis_len(token.len()).to_be_bytes());
        bytes.extend_from_slice(token);
        let has_scope = if scope.is_some() { HAS_SCOPE } else { 0 };
        bytes.push(has_scope | if self.heals { HEALS } else { 0 });
        bytes.extend_from_slice(scope.unwrap_or_default());
        bytes
    }

    /// `None` for what this version did not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (born, rest) = number(bytes)?;
        let (life, rest) = number(rest)?;
        let (length, rest) = number(rest)?;
        let (token, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let token = Secret::from(std::str::from_utf8(token).ok()?);
        let token = AccessToken::bearer(token, Duration::from_millis(life)).ok()?;
        let (&flags, scope) = rest.split_first()?;
        let token = match (flags & HAS_SCOPE != 0, scope) {
            (true, scope) => token.with_scope(std::str::from_utf8(scope).ok()?),
            (false, []) => token,
            (false, _) => return None,
        };
        if flags & !(HAS_SCOPE | HEALS) != 0 {
            return None;
        }
        let born = UNIX_EPOCH.checked_add(Duration::from_millis(born))?;
        let heals = flags & HEALS != 0;
        Some(Self { token, born, heals })
    }

    /// What is left of its life, by this wall clock: never more than there was,
    /// should this clock be behind the sender's.
    pub(super) fn left(&self, wall: SystemTime) -> Duration {
        let life = self.token.expires_in();
        match wall.duration_since(self.born) {
            Ok(age) => life.saturating_sub(age),
            Err(_) => life,
        }
    }
}

/// `Bearer …` without `Bearer `.
fn bare(token: &AccessToken) -> &[u8] {
    let header = token.header_value().as_bytes();
    header.strip_prefix(b"Bearer ").unwrap_or(header)
}

/// A token request that failed, so that siblings do not all try in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    kind: ErrorKind,
    /// One after the other, this one included.
    failures: u32,
    /// Until when to leave the endpoint alone.
    until: SystemTime,
}

/// Failures this far apart are not one series.
const SERIES: Duration = Duration::from_secs(60);

impl Failure {
    /// `None` for what says nothing about the endpoint.
    pub(super) fn after(error: &Error, earlier: Option<Self>, wall: SystemTime) -> Option<Self> {
        let lasting = !error.is_transient();
        code(error.kind())?;
        if error.is_not_attempted() {
            return None;
        }
        let earlier = earlier.filter(|earlier| {
            let since = wall.duration_since(earlier.until).unwrap_or_default();
            since < SERIES
        });
        let failures = earlier.map_or(0, |earlier| earlier.failures);
        let doublings = 2u32.saturating_pow(failures);
        let seconds = |seconds| Duration::from_secs(seconds);
        let hold = match error.retry_after() {
            Some(after) => after.clamp(seconds(1), seconds(60 * 60)),
            None if lasting => seconds(60).saturating_mul(doublings).min(seconds(600)),
            None => seconds(1).saturating_mul(doublings).min(seconds(30)),
        };
        Some(Self {
            kind: error.kind(),
            failures: failures.saturating_add(1),
            until: wall.checked_add(hold)?,
        })
    }

    /// How long the store keeps it: while it may be part of a series.
    pub(super) fn life(&self, wall: SystemTime) -> Duration {
        self.until_by(wall).saturating_add(SERIES)
    }

    /// How long it still holds, by this wall clock and by what the store says
    /// is left of the entry: a clock that is behind the sender's makes no
    /// failure longer.
    pub(super) fn left(&self, wall: SystemTime, expires_in: Duration) -> Duration {
        self.until_by(wall).min(expires_in.saturating_sub(SERIES))
    }

    /// For no failure over an hour, whatever the clocks say.
    fn until_by(&self, wall: SystemTime) -> Duration {
        let left = self.until.duration_since(wall).unwrap_or_default();
        left.min(Duration::from_secs(60 * 60))
    }

    /// As those get it who did not even try.
    pub(super) fn error(&self, left: Duration) -> Error {
        let kind = self.kind;
        let message = format!("a sibling's token request has just failed ({kind})");
        Error::new(kind, message).with_retry_after(left)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = wall_millis(self.until).to_be_bytes().to_vec();
        bytes.extend(u64::from(self.failures).to_be_bytes());
        bytes.extend(code(self.kind));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (until, rest) = number(bytes)?;
        let (failures, rest) = number(rest)?;
        let &[code] = rest else {
            return None;
        };
        let (kind, _) = KINDS.iter().find(|(_, known)| *known == code)?;
        Some(Self {
            kind: *kind,
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            until: UNIX_EPOCH.checked_add(Duration::from_millis(until))?,
        })
    }
}

/// What a token endpoint can have said. Codes stay.
const KINDS: [(ErrorKind, u8); 7] = [
    (ErrorKind::InvalidClient, 1),
    (ErrorKind::InvalidScope, 2),
    (ErrorKind::Denied, 3),
    (ErrorKind::RateLimited, 4),
    (ErrorKind::Timeout, 5),
    (ErrorKind::Transport, 6),
    (ErrorKind::Malformed, 7),
];

fn code(kind: ErrorKind) -> Option<u8> {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.map(|(_, code)| *code)
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn millis(duration: Duration) -> u64 {
    let duration = duration.min(MAX_LIFE);
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

fn millis_len(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn wall_millis(wall: SystemTime) -> u64 {
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + S(1_800_000_000 + seconds)
    }

    fn entry(scope: Option<&str>) -> TokenEntry {
        let token = AccessToken::bearer("abc.DEF-123", S(3599)).unwrap();
        let token = match scope {
            Some(scope) => token.with_scope(scope),
            None => token,
        };
        let (born, heals) = (at(0), scope.is_some());
        TokenEntry { token, born, heals }
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        for scope in [None, Some(""), Some("a b")] {
            let bytes = entry(scope).encode();
            let back = TokenEntry::decode(&bytes).unwrap();
            assert_eq!(back.token.header_value(), "Bearer abc.DEF-123");
            assert_eq!(back.token.expires_in(), S(3599));
            assert_eq!(back.token.scope(), scope);
            assert_eq!(back.born, at(0));
            assert_eq!(back.heals, scope.is_some());
        }
    }

    #[test]
    fn bytes_of_any_kind_are_an_entry_or_nothing() {
        let whole = entry(Some("a b")).encode();
        for length in 0..whole.len() - 4 {
            assert!(TokenEntry::decode(&whole[..length]).is_none(), "{length}");
        }
        let failure = Failure::after(&Error::new(ErrorKind::Denied, ""), None, at(0)).unwrap();
        for length in 0..failure.encode().len() {
            assert!(Failure::decode(&failure.encode()[..length]).is_none());
        }
        for byte in 0..=255u8 {
            let bytes = [byte; 40];
            let _ = (TokenEntry::decode(&bytes), Failure::decode(&bytes));
        }
    }

    #[test]
    fn what_is_left_is_counted_from_the_request_and_never_more_than_was_granted() {
        assert_eq!(entry(None).left(at(599)), S(3000));
        assert_eq!(entry(None).left(at(9999)), S(0));
        let behind = at(0) - S(7200);
        assert_eq!(entry(None).left(behind), S(3599));
    }

    #[test]
    fn failures_hold_the_longer_the_more_there_are() {
        let down = Error::new(ErrorKind::Transport, "");
        let wrong = Error::new(ErrorKind::InvalidClient, "");
        let mut earlier = None;
        let mut holds = Vec::new();
        for _ in 0..7 {
            let failure = Failure::after(&down, earlier, at(0)).unwrap();
            holds.push(failure.left(at(0), failure.life(at(0))).as_secs());
            assert_eq!(Failure::decode(&failure.encode()), Some(failure));
            earlier = Some(failure);
        }
        assert_eq!(holds, [1, 2, 4, 8, 16, 30, 30]);
        let after_a_while = Failure::after(&down, earlier, at(91)).unwrap();
        assert_eq!(after_a_while.life(at(91)), S(61));
        assert_eq!(
            Failure::after(&wrong, None, at(0)).unwrap().life(at(0)),
            S(120)
        );
        let told = down.with_retry_after(S(20));
        assert_eq!(
            Failure::after(&told, earlier, at(0)).unwrap().life(at(0)),
            S(80)
        );
    }

    #[test]
    fn what_says_nothing_about_the_endpoint_is_not_shared() {
        let spent = Error::new(ErrorKind::RateLimited, "").not_attempted();
        for error in [
            spent,
            Error::new(ErrorKind::Store, ""),
            Error::new(ErrorKind::Runtime, ""),
        ] {
            assert!(Failure::after(&error, None, at(0)).is_none());
        }
    }
}
