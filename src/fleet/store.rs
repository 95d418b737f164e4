//! [`TokenStore`]: where processes share one token, one lease and one window of
//! token requests. A store knows neither tokens nor HTTP.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Claimed, Finish, StoredEntry};
use crate::clock::{Clock as _, TokioClock, later};
use crate::error::Error;

/// The largest entry, sealed: 64 KiB. A store treats a larger one as absent.
pub const MAX_ENTRY_SIZE: usize = 64 * 1024;

/// What processes share: for each key one sealed entry and one lease, and for
/// each endpoint one window of token requests.
///
/// Each operation is one atomic step on one clock for all processes. Everything
/// in the store ends by itself. An operation may be repeated with the same
/// [`Holder`](super::Holder), because an answer can be lost. The caller sets the time limit
/// (500 ms) and drops the future when it ends.
///
/// `testing::check_store` checks an implementation.
///
/// ```
/// use officernd_auth::Error;
/// use officernd_auth::fleet::{Claim, Claimed, Finish, TokenStore};
///
/// /// Shares nothing: each process fetches its own token.
/// struct Apart;
///
/// impl TokenStore for Apart {
///     async fn claim(&self, claim: &Claim) -> Result<Claimed, Error> {
///         Ok(match claim.may_fetch {
///             true => Claimed::Granted,
///             false => Claimed::RateLimited(std::time::Duration::ZERO),
///         })
///     }
///     async fn finish(&self, _: &Finish) -> Result<bool, Error> {
///         Ok(true)
///     }
/// }
/// # drop(Apart);
/// ```
///
/// # Errors
///
/// Any error takes the store out of use for 10 s; make it of kind
/// [`ErrorKind::Store`](crate::ErrorKind::Store). Content that cannot be read is not an error: treat it
/// as absent.
///
/// # Cancel safety
///
/// A dropped operation has happened or not; what it took ends by itself.
pub trait TokenStore: Send + Sync + 'static {
    /// Returns the entry of the key unless its id is [`Claim::seen`]. Otherwise
    /// takes the lease of the key and a place in the window, if the caller may
    /// fetch, no other holder has a lease, and the window has a place. Otherwise
    /// says how long to wait.
    ///
    /// A holder that has the lease already gets it anew and keeps its place. A
    /// lease with more than [`Limits::lease`](super::Limits::lease) left is junk and is overwritten;
    /// a place that ends later than any request can is shortened.
    fn claim(&self, claim: &Claim) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// If the holder still has the lease: saves the entry in place of the one
    /// before, gives up the lease and wakes [`changed`](Self::changed). In any
    /// case the holder's place becomes free after [`Finish::frees_after`].
    ///
    /// Returns whether the holder had the lease, or has saved this entry before.
    fn finish(&self, finish: &Finish) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Completes when [`finish`](Self::finish) has run for the key, with the
    /// entry if the store can tell, or when it can no longer know. `round`
    /// counts the waits of one fetch from 0.
    ///
    /// Must watch the key from its first poll. The default sleeps for 50 to
    /// 200 ms, doubling to 2 s with each round.
    fn changed(
        &self,
        claim: &Claim,
        round: u32,
    ) -> impl Future<Output = Option<StoredEntry>> + Send {
        let _ = claim;
        async move {
            TokioClock
                .sleep_until(later(TokioClock.now(), poll_interval(round)))
                .await;
            None
        }
    }

    /// Connects if there is no connection. Called before each operation, with
    /// a time limit of its own (3 s). The default does nothing.
    fn connect(&self) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }
}

/// 50 to 200 ms, doubled with each round up to 2 s.
pub(crate) fn poll_interval(round: u32) -> Duration {
    let doubled = fastrand::u64(50..200).saturating_mul(1 << round.min(6));
    Duration::from_millis(doubled.min(2000))
}

impl<S: TokenStore> TokenStore for Arc<S> {
    fn claim(&self, claim: &Claim) -> impl Future<Output = Result<Claimed, Error>> + Send {
        S::claim(self, claim)
    }

    fn finish(&self, finish: &Finish) -> impl Future<Output = Result<bool, Error>> + Send {
        S::finish(self, finish)
    }

    fn changed(
        &self,
        claim: &Claim,
        round: u32,
    ) -> impl Future<Output = Option<StoredEntry>> + Send {
        S::changed(self, claim, round)
    }

    fn connect(&self) -> impl Future<Output = Result<(), Error>> + Send {
        S::connect(self)
    }
}

/// Whole milliseconds, at least one: the unit of stores.
#[cfg(any(feature = "testing", feature = "file", feature = "redis"))]
pub(crate) fn millis(duration: Duration) -> u64 {
    whole_millis(duration).max(1)
}

pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
