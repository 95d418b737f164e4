//! One wait for a notification: subscribes, and ends the subscription with the
//! wait.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::redis::{RedisResult, Value, cmd};

use super::super::claim::StoredEntry;
use super::bell::Listener;
use super::connect::Connected;
use super::link::Link;
use crate::clock::{Clock as _, TokioClock, later, timeout_at};

/// Subscribes, and waits for a message. `None` if that is not possible.
pub(super) async fn hear(link: &Link, channel: String) -> Option<Option<StoredEntry>> {
    let live = link.live()?;
    let bell = Arc::clone(live.bell.as_ref()?);
    let mut subscription = Subscription {
        listener: bell.listen(channel)?,
        live: Some(live.clone()),
    };
    let mut connection = live.connection.clone();
    let mut command = cmd(live.connection.subscribe());
    command.arg(subscription.listener.channel());
    let mut subscribing = pin!(async move {
        let subscribed: RedisResult<Value> = command.query_async(&mut connection).await;
        subscribed.is_ok()
    });
    let mut subscribed = false;
    poll_fn(|cx| {
        if !subscribed {
            if let Poll::Ready(done) = subscribing.as_mut().poll(cx) {
                if !done {
                    bell.refuse();
                    return Poll::Ready(None);
                }
                subscribed = true;
            }
        }
        let heard = Pin::new(&mut subscription.listener.heard);
        heard.poll(cx).map(|heard| Some(heard.unwrap_or(None)))
    })
    .await
}

/// Ends the subscription when the wait ends.
struct Subscription {
    listener: Listener,
    live: Option<Connected>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (true, Some(mut live)) = (self.listener.is_last(), self.live.take()) else {
            return;
        };
        let channel = self.listener.channel().to_owned();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut command = cmd(live.connection.unsubscribe());
                let answer = command.arg(channel).exec_async(&mut live.connection);
                // A server that does not answer has lost its connection soon.
                let until = later(TokioClock.now(), Duration::from_secs(1));
                timeout_at(&TokioClock, until, answer).await;
                drop(live.driver);
            });
        }
    }
}
