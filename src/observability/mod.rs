//! Spans, events and metrics, with stable names: [the page on observability](crate::guide::observability) lists them.

mod events;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;

pub(crate) use self::events::*;
#[cfg(feature = "metrics")]
pub use self::metrics::describe_metrics;
pub(crate) use self::metrics::{
    WaitTimer, count_hit, count_request, token_landed, token_replaced, token_request,
};
