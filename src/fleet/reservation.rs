//! The process's own permit for a token request, beside the store's.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Error;
use crate::provider::FetchContext;
use crate::rate_limit::Permit;

pub(super) enum Reservation {
    /// Not asked for, or given back.
    Released,
    Pending(Pin<Box<dyn Future<Output = Result<Permit, Error>> + Send>>),
    Ready(Permit),
    /// None frees before the deadline.
    Refused(Error),
}

impl Reservation {
    /// Asks for a permit, without waiting for it.
    pub(super) async fn ask(&mut self, cx: &FetchContext) {
        if matches!(self, Self::Released) {
            let cx = cx.clone();
            *self = Self::Pending(Box::pin(async move { cx.reserve().await }));
        }
        poll_fn(|cx| Poll::Ready(self.poll_pending(cx)))
            .await
            .is_ready();
    }

    /// Ready when a permit that was missing has been granted or refused.
    pub(super) fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Pending(reserving) = self else {
            return Poll::Pending;
        };
        reserving.as_mut().poll(cx).map(|result| {
            *self = match result {
                Ok(permit) => Self::Ready(permit),
                Err(error) => Self::Refused(error),
            };
        })
    }

    pub(super) fn may_fetch(&self) -> bool {
        matches!(self, Self::Ready(_))
    }

    /// Gives a permit back: it is not held while waiting.
    pub(super) fn release(&mut self) {
        if matches!(self, Self::Ready(_)) {
            *self = Self::Released;
        }
    }

    pub(super) fn take(&mut self) -> Option<Permit> {
        match std::mem::replace(self, Self::Released) {
            Self::Ready(permit) => Some(permit),
            other => {
                *self = other;
                None
            }
        }
    }
}
