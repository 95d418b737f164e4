//! Notifications over the connection that also carries the operations (RESP3):
//! wakes the processes that wait for a key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::{AsyncPushSender, SendError};
use ::redis::{PushInfo, PushKind, Value};
use tokio::sync::oneshot;

use super::super::claim::StoredEntry;
use super::super::name::Holder;
use super::super::store::MAX_ENTRY_SIZE;

type Waiter = (u64, oneshot::Sender<Option<StoredEntry>>);

/// The waits of one connection.
#[derive(Default)]
pub(super) struct Bell {
    waiters: Mutex<Waiters>,
    /// The server refuses subscriptions: poll.
    refused: AtomicBool,
    /// The connection is gone.
    lost: Arc<AtomicBool>,
}

#[derive(Default)]
struct Waiters {
    by_channel: HashMap<String, Vec<Waiter>>,
    next_id: u64,
}

/// A wait for one message. Ends with the channel's last wait.
pub(super) struct Listener {
    bell: Arc<Bell>,
    channel: String,
    id: u64,
    pub(super) heard: oneshot::Receiver<Option<StoredEntry>>,
}

impl Bell {
    /// Sets `lost` when the connection ends.
    pub(super) fn new(lost: Arc<AtomicBool>) -> Self {
        Self {
            lost,
            ..Self::default()
        }
    }

    pub(super) fn listen(self: &Arc<Self>, channel: String) -> Option<Listener> {
        if self.refused.load(Ordering::Relaxed) || self.lost.load(Ordering::Relaxed) {
            return None;
        }
        let (ring, heard) = oneshot::channel();
        let mut waiters = self.lock();
        let id = waiters.next_id;
        waiters.next_id += 1;
        let channels = &mut waiters.by_channel;
        channels
            .entry(channel.clone())
            .or_default()
            .push((id, ring));
        drop(waiters);
        Some(Listener {
            bell: Arc::clone(self),
            channel,
            id,
            heard,
        })
    }

    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    fn ring(&self, channel: &str, entry: Option<&StoredEntry>) {
        let waiters = self.lock().by_channel.remove(channel);
        for (_, ring) in waiters.into_iter().flatten() {
            // A wait that was dropped needs nothing.
            let _ = ring.send(entry.cloned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncPushSender for Bell {
    /// A push message of the server, or of the client when the connection ends.
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        let channel = match info.data.first() {
            Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
            Some(Value::SimpleString(text)) => Some(&**text),
            _ => None,
        };
        match (&info.kind, channel) {
            (PushKind::Message | PushKind::SMessage, Some(channel)) => {
                let entry = match info.data.get(1) {
                    Some(Value::BulkString(bytes)) => parse(bytes),
                    _ => None,
                };
                self.ring(channel, entry.as_ref());
            }
            // Another wait of this connection ended while this one began, or
            // the slot moved.
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(channel)) => {
                self.ring(channel, None);
            }
            (PushKind::Disconnection, _) => {
                self.lost.store(true, Ordering::Relaxed);
                self.lock().by_channel.clear();
            }
            _ => {}
        }
        Ok(())
    }
}

impl Listener {
    /// Ends the wait; whether the channel has no other on this connection.
    pub(super) fn is_last(&self) -> bool {
        let mut waiters = self.bell.lock();
        let Some(others) = waiters.by_channel.get_mut(&self.channel) else {
            return true;
        };
        others.retain(|(id, _)| *id != self.id);
        let last = others.is_empty();
        if last {
            waiters.by_channel.remove(&self.channel);
        }
        last
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }
}

/// `life id sealed`, as the script publishes it. It is judged like any entry.
fn parse(message: &[u8]) -> Option<StoredEntry> {
    let space = message.iter().take(20).position(|byte| *byte == b' ')?;
    let (life, rest) = message.split_at_checked(space)?;
    let life: u64 = std::str::from_utf8(life).ok()?.parse().ok()?;
    let stored = rest.get(1..)?;
    entry(stored, Duration::from_millis(life))
}

/// An entry as the scripts save it: the holder's name, then the sealed bytes.
pub(super) fn entry(stored: &[u8], expires_in: Duration) -> Option<StoredEntry> {
    let (id, sealed) = stored.split_at_checked(32)?;
    let id = Holder::parse(std::str::from_utf8(id).ok()?)?;
    (sealed.len() <= MAX_ENTRY_SIZE).then(|| StoredEntry::new(id, sealed.to_vec(), expires_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(bell: &Bell, kind: PushKind, data: &[&[u8]]) {
        let data = data.iter().map(|part| Value::BulkString(part.to_vec()));
        let data = data.collect();
        assert!(bell.send(PushInfo { kind, data }).is_ok());
    }

    #[test]
    fn a_message_wakes_the_waits_of_its_channel_with_its_entry() {
        let bell = Arc::new(Bell::default());
        let mut here = bell.listen("a".to_owned()).unwrap();
        let mut there = bell.listen("b".to_owned()).unwrap();
        let holder = "0123456789abcdef0123456789abcdef";
        let message = format!("1500 {holder}sealed");
        push(&bell, PushKind::Message, &[b"a", message.as_bytes()]);
        let entry = here.heard.try_recv().unwrap().unwrap();
        assert_eq!(
            (entry.id.as_str(), &*entry.sealed),
            (holder, &b"sealed"[..])
        );
        assert_eq!(entry.expires_in, Duration::from_millis(1500));
        assert!(there.heard.try_recv().is_err());
        push(&bell, PushKind::Disconnection, &[]);
        assert!(there.heard.try_recv().is_err());
        assert!(bell.listen("a".to_owned()).is_none());
    }

    #[test]
    fn other_messages_wake_without_an_entry() {
        for message in [
            &b""[..],
            b"1500",
            b"x y",
            b"1500 short",
            b"-1 0123456789abcdef0123456789abcdef",
        ] {
            let bell = Arc::new(Bell::default());
            let mut listener = bell.listen("a".to_owned()).unwrap();
            push(&bell, PushKind::SMessage, &[b"a", message]);
            assert_eq!(listener.heard.try_recv().unwrap(), None);
        }
    }

    #[test]
    fn only_the_last_wait_of_a_channel_ends_its_subscription() {
        let bell = Arc::new(Bell::default());
        let one = bell.listen("a".to_owned()).unwrap();
        let two = bell.listen("a".to_owned()).unwrap();
        assert!(!one.is_last());
        assert!(two.is_last());
    }
}
