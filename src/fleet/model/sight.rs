//! What a process makes of an entry: the pure verdict.

use std::time::Duration;

use super::super::entry::{Candidate, Verdict};
use crate::provider::Cause;

/// What a process knows about the entry that the store returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nothing: it has no token.
    New,
    /// A server has answered 401 to this very token.
    Rejected,
    /// By the process's wall clock, the token has expired.
    Expired,
}

impl Sight {
    /// A tick is ten minutes.
    pub(super) fn verdict(self, expires_in: Duration, life: u64) -> Verdict {
        let ticks = |ticks| Duration::from_secs(600 * ticks);
        let left = ticks(u64::try_from(expires_in.as_millis()).unwrap());
        let candidate = Candidate {
            left,
            granted: ticks(life),
            minted_by: "",
            same_text: false,
            last: None,
            previous_left: Duration::ZERO,
        };
        match self {
            Self::New => candidate.verdict(Cause::Cold),
            Self::Rejected => {
                let candidate = Candidate {
                    same_text: true,
                    last: Some(""),
                    previous_left: left,
                    ..candidate
                };
                candidate.verdict(Cause::Rejected)
            }
            Self::Expired => {
                let left = Duration::ZERO;
                Candidate { left, ..candidate }.verdict(Cause::Cold)
            }
        }
    }
}
