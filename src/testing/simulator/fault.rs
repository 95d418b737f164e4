use std::collections::VecDeque;
use std::fmt;
use std::future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::reply::{self, Reply};

/// Steps that a script holds.
const MAX_SCRIPT: usize = 1024;

/// A way for one request to go wrong.
///
/// ```
/// use officernd_auth::testing::{Fault, Simulator};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let officernd = Simulator::start().await?;
/// officernd.token_faults().next(1, Fault::Reset);
/// officernd.token_faults().next(1, Fault::Delay(Duration::from_secs(2)));
/// officernd.api_faults().always(Fault::json(429, r#"{"message":"slow down"}"#));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Answers this status, with an empty body.
    Status(u16),
    /// Answers just this.
    Response {
        /// The status; 500 in place of one that is no final status of HTTP.
        status: u16,
        /// Headers. Invalid ones, and those that frame the body
        /// (`content-length`, `transfer-encoding`), are left out.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// Waits first, then serves the request as if nothing had been. A delay of
    /// zero lets one request of a script pass.
    Delay(Duration),
    /// Never answers, and keeps the connection open.
    Hang,
    /// Closes the connection without an answer.
    Reset,
    /// Answers 200 with a page of HTML, as a proxy does that wants a log-in.
    Garbage,
}

impl Fault {
    /// An answer of this status with this JSON body.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".into(), "application/json".into())];
        let body = body.into();
        Self::Response {
            status,
            headers,
            body,
        }
    }

    /// The answer; `None` if the request is to be served as usual.
    pub(super) async fn play(self) -> Result<Option<Reply>, reply::Reset> {
        let answer = match self {
            Self::Status(status) => reply::scripted(status, &[], Bytes::new()),
            Self::Response {
                status,
                headers,
                body,
            } => reply::scripted(status, &headers, body),
            Self::Delay(delay) => {
                tokio::time::sleep(delay).await;
                return Ok(None);
            }
            Self::Hang => future::pending().await,
            Self::Reset => return Err(reply::Reset),
            Self::Garbage => reply::garbage(),
        };
        Ok(Some(answer))
    }
}

/// A scripted answer may hold a token: names and sizes only.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.debug_tuple("Status").field(status).finish(),
            Self::Response {
                status,
                headers,
                body,
            } => f
                .debug_struct("Response")
                .field("status", status)
                .field("headers", &headers.len())
                .field("body", &format_args!("{} bytes", body.len()))
                .finish(),
            Self::Delay(delay) => f.debug_tuple("Delay").field(delay).finish(),
            Self::Hang => f.write_str("Hang"),
            Self::Reset => f.write_str("Reset"),
            Self::Garbage => f.write_str("Garbage"),
        }
    }
}

/// The faults that one endpoint plays next, in order.
///
/// A request that a fault answers still counts, everywhere.
///
/// ```
/// use officernd_auth::testing::{Fault, Simulator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let officernd = Simulator::start().await?;
/// let faults = officernd.token_faults();
/// faults.next(2, Fault::Status(503)); // the next two requests,
/// faults.next(1, Fault::Garbage); // the one after them,
/// faults.always(Fault::Hang); // and all others
/// assert_eq!(faults.pending(), 3);
/// faults.clear();
/// assert_eq!(faults.pending(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Faults {
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<(u32, Fault)>,
    always: Option<Fault>,
}

impl Faults {
    /// Lets the next `times` requests meet this fault, after those that are
    /// scripted already. A script holds 1,024 steps; further ones are ignored.
    pub fn next(&self, times: u32, fault: Fault) {
        let mut script = self.script();
        if times > 0 && script.steps.len() < MAX_SCRIPT {
            script.steps.push_back((times, fault));
        }
    }

    /// Lets every request meet this fault once the scripted ones are used up,
    /// until [`clear`](Self::clear).
    pub fn always(&self, fault: Fault) {
        self.script().always = Some(fault);
    }

    /// Forgets all faults. Requests that already met one are not freed.
    pub fn clear(&self) {
        *self.script() = Script::default();
    }

    /// How many requests are yet to meet a scripted fault, leaving out
    /// [`always`](Self::always).
    #[must_use]
    pub fn pending(&self) -> u64 {
        let script = self.script();
        script
            .steps
            .iter()
            .map(|(times, _)| u64::from(*times))
            .sum()
    }

    /// The fault for the request at hand.
    pub(super) fn take(&self) -> Option<Fault> {
        let mut script = self.script();
        let Some((times, fault)) = script.steps.front_mut() else {
            return script.always.clone();
        };
        *times -= 1;
        let (spent, fault) = (*times == 0, fault.clone());
        if spent {
            script.steps.pop_front();
        }
        Some(fault)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let script = self.script();
        f.debug_struct("Faults")
            .field("next", &script.steps)
            .field("always", &script.always)
            .finish()
    }
}
