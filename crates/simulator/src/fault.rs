use std::collections::VecDeque;
use std::future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::reply::{self, Reply};

/// A way for one request to go wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Responds with this status and an empty body.
    Status(u16),
    /// Responds with this status, these headers and this body.
    Response {
        /// The status. 500 replaces a number that is not a final status of HTTP.
        status: u16,
        /// Headers. Invalid ones, and those that frame the body (`content-length`, `transfer-encoding`), are left out.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// Waits, then serves the request normally. A delay of zero serves one request of a script without a fault.
    Delay(Duration),
    /// Never responds, and keeps the connection open.
    Hang,
    /// Closes the connection without a response.
    Reset,
    /// Responds with a 200 HTML page, like a captive login proxy.
    Garbage,
}

impl Fault {
    /// Returns a response with this status and JSON body.
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

    /// Returns the response, or `None` if the request is served normally. An error resets the connection.
    pub(crate) async fn play(self) -> io::Result<Option<Reply>> {
        let reply = match self {
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
            Self::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            Self::Garbage => reply::garbage(),
        };
        Ok(Some(reply))
    }
}

/// The script of faults of one endpoint, played in order.
///
/// A request that meets a fault still counts: in the rate limit, in the counters and in the log.
///
/// ```
/// use officernd_simulator::{Fault, Simulator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let officernd = Simulator::start().await?;
/// let faults = officernd.token_faults();
/// faults.next(2, Fault::Status(503)); // the next two requests,
/// faults.next(1, Fault::json(429, r#"{"message":"slow down"}"#)); // the one after them,
/// faults.always(Fault::Hang); // and all others
/// assert_eq!(faults.pending(), 3);
/// faults.clear();
/// assert_eq!(faults.pending(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<(u32, Fault)>,
    always: Option<Fault>,
}

impl Faults {
    /// Adds a fault to the script, for `times` requests.
    pub fn next(&self, times: u32, fault: Fault) {
        if times > 0 {
            self.script().steps.push_back((times, fault));
        }
    }

    /// Sets the fault of every request after the script has ended, until [`clear`](Self::clear).
    pub fn always(&self, fault: Fault) {
        self.script().always = Some(fault);
    }

    /// Removes all faults. Requests that already met one are not released.
    pub fn clear(&self) {
        *self.script() = Script::default();
    }

    /// Returns how many requests the script still covers, without [`always`](Self::always).
    #[must_use]
    pub fn pending(&self) -> u64 {
        let script = self.script();
        script
            .steps
            .iter()
            .map(|(times, _)| u64::from(*times))
            .sum()
    }

    /// Takes the fault of one request out of the script.
    pub(crate) fn take(&self) -> Option<Fault> {
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
