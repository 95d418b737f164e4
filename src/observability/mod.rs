//! Spans, events and metrics, with stable names: [the page on observability](crate::guide::observability) lists them.

mod events;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;

pub(crate) use self::events::{
    Refresh, TokenRequest, credentials_unreadable, rejected, scope_narrowed, unknown_variable,
};
#[cfg(feature = "metrics")]
pub use self::metrics::describe as describe_metrics;
pub(crate) use self::metrics::{
    WaitTimer, count_request, token_landed, token_replaced, token_request,
};

/// How a request that the layer was given got its token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestOutcome {
    /// The token was at hand.
    Hit,
    /// It waited, and got a token.
    Waited,
    /// It waited, and got none: it was not sent.
    Failed,
    /// It goes to an origin that may not see the token: it was not sent.
    Refused,
    /// It went out as it was, by the policy.
    Passed,
}
